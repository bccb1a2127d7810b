"""What is predicted: the head's size, the loss, the metrics and the decoding."""

from .classification import Classification as Classification
from .classification import classification as classification
from .classification import task_from_config as task_from_config
