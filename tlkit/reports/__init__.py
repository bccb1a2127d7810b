"""What happened, in numbers and pictures."""

from .evaluation_result import ClassRow as ClassRow
from .evaluation_result import Evaluation as Evaluation
from .evaluation_result import evaluate_predictions as evaluate_predictions
from .evaluation_result import most_confused as most_confused
from .fit_report import PhaseReport as PhaseReport
from .fit_report import Report as Report
from .plots import plot_confusion as plot_confusion
from .plots import plot_history as plot_history
