"""Batches move weights: schedules, plans, the loop, evaluation and prediction."""

from .evaluation import evaluate as evaluate
from .fitting import fit as fit
from .learning_rate_finder import RateSearch as RateSearch
from .learning_rate_finder import find_learning_rate as find_learning_rate
from .plans.cache_plan import ActivationCache as ActivationCache
from .plans.plan import PhasePlan as PhasePlan
from .plans.plan import Plan as Plan
from .plans.plan import plan as plan
from .plans.schedules import Phase as Phase
from .plans.schedules import gradual as gradual
from .plans.schedules import head_only as head_only
from .plans.schedules import head_then_all as head_then_all
from .plans.schedules import learning_rates as learning_rates
from .prediction import Prediction as Prediction
from .prediction import predict as predict
from .strategies.strategies import strategy as strategy
