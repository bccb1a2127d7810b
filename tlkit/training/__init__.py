"""Trains models: schedules, plans, the training loop, evaluation and prediction.

A model, data and a schedule come in; trained weights and a `tlkit.reports.Report` go
out. The data flow through one `fit` (`fitting.py`), in the order of its calls:

1. `strategies/` finds the strategy and its devices.
2. `data_arguments.py` turns the data into `feeds/` (batches for every epoch), and
   `arguments.py` the schedule into phases.
3. `plans/` computes a `Plan`: which weights each phase trains, at which learning rates,
   and which activations of frozen blocks are cached.
4. `strategies/` copies the model into the strategy's scope, if it was built elsewhere.
5. `keras_contract.py` refuses Keras code that the loop would not call. `run_setup.py`
   compiles the model and makes a `Run`: optimizer, loss, metrics and callbacks.
6. For each phase, `activations/` computes the output of the frozen blocks once, and
   `phase_loop.py` trains the rest of the model with the modules in `loop/`.
7. `checkpoints/` writes the state of the run during phases and after them, and restores
   it with `resume=True`.
8. `evaluation.py` evaluates the validation data, `strategies/` copies the trained
   weights back, and `run_report.py` makes the report.

Besides `fit`: `prediction.py` (`predict`), `learning_rate_finder.py`,
`model_outputs.py`, which runs a model over all examples, and `repeated_fits.py`, the
seeds of a model's second and later `fit`.

Words: a *phase* is a period of training with one set of trained blocks; a *schedule* is
the phases in order; an *update* changes the weights once, from one or several
(accumulated) batches; a *replica* is a copy of the model on one device; a *cut* is the
border in the encoder before which all blocks are frozen.
"""

from .checkpoints.saver import Checkpoints as Checkpoints
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
