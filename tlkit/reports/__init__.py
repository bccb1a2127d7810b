"""Results of training and evaluation, as numbers, tables, JSON and plots.

Predictions and the history of a run come in; frozen dataclasses go out. They print as
tables and are stored as JSON.

* `evaluation_result`: compares predictions with labels: `Evaluation`, `ClassRow`.
* `fit_report`: `Report`, the result of `tlkit.fit`, and its file `report.json`.
* `tables`: formats evaluations and reports as text for a terminal or a log.
* `plots`: draws them with matplotlib, which the extra `plots` installs.

*Support* is the number of examples of a class. A *macro* value is a mean over classes.
*Confusion* counts the examples of each true class by their predicted class. *History*
is the loss and the metrics of every epoch.
"""

from .evaluation_result import ClassRow as ClassRow
from .evaluation_result import Evaluation as Evaluation
from .evaluation_result import evaluate_predictions as evaluate_predictions
from .evaluation_result import most_confused as most_confused
from .fit_report import PhaseReport as PhaseReport
from .fit_report import Report as Report
from .plots import plot_confusion as plot_confusion
from .plots import plot_history as plot_history
