"""What happened, in numbers and pictures."""

from .evaluation import ClassRow as ClassRow
from .evaluation import Evaluation as Evaluation
from .evaluation import evaluate_predictions as evaluate_predictions
from .evaluation import most_confused as most_confused
from .pictures import plot_confusion as plot_confusion
from .pictures import plot_history as plot_history
from .report import PhaseReport as PhaseReport
from .report import Report as Report
