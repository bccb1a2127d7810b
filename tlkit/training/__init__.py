"""Batches move weights: schedules, plans, the loop, evaluation and prediction."""

from .caching import ActivationCache as ActivationCache
from .evaluation import evaluate as evaluate
from .finding import RateSearch as RateSearch
from .finding import find_learning_rate as find_learning_rate
from .fitting import fit as fit
from .planning import PhasePlan as PhasePlan
from .planning import Plan as Plan
from .planning import plan as plan
from .prediction import Prediction as Prediction
from .prediction import predict as predict
from .schedules import Phase as Phase
from .schedules import gradual as gradual
from .schedules import head_only as head_only
from .schedules import head_then_all as head_then_all
from .schedules import learning_rates as learning_rates
from .strategies import strategy as strategy
