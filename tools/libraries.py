"""What other libraries call the rules: for those who port a training run. Keyed by preset, then by rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Library(NamedTuple):
    """A library whose numbers a preset carries: how it calls each rule, and what to watch for."""

    title: str
    beware: str
    calls: Mapping[str, str]


LIBRARIES: Mapping[str, Library] = {
    "torch": Library(
        "PyTorch (`torch.optim`)",
        "Its first momentum step ignores `dampening`. Its weight decay is added to the gradient, but in "
        "`AdamW`. Gradients are clipped by a call of one's own, before weight decay.",
        {
            "sgd": "SGD()",
            "momentum": "SGD(momentum=0.9)",
            "nesterov": "SGD(momentum=0.9, nesterov=True)",
            "adagrad": "Adagrad()",
            "rmsprop": "RMSprop()",
            "adadelta": "Adadelta()",
            "adam": "Adam()",
            "adamw": "AdamW()",
            "amsgrad": "Adam(amsgrad=True)",
            "adamax": "Adamax()",
            "nadam": "NAdam()",
            "radam": "RAdam()",
            "rprop": "Rprop()",
            "adafactor": "Adafactor()",
            "muon": "Muon()",
        },
    ),
    "keras": Library(
        "Keras 3 (`keras.optimizers`)",
        "Its momentum adds up steps, not gradients, which shows when the learning rate changes. Its Adam "
        "adds epsilon to the uncorrected root. Its `weight_decay` is decoupled in every optimizer.",
        {
            "sgd": "SGD()",
            "momentum": "SGD(momentum=0.9)",
            "nesterov": "SGD(momentum=0.9, nesterov=True)",
            "adagrad": "Adagrad()",
            "rmsprop": "RMSprop()",
            "adadelta": "Adadelta()",
            "adam": "Adam()",
            "adamw": "AdamW()",
            "amsgrad": "Adam(amsgrad=True)",
            "adamax": "Adamax()",
            "nadam": "Nadam()",
            "lion": "Lion()",
            "ftrl": "Ftrl()",
            "lamb": "Lamb()",
            "adafactor": "Adafactor()",
            "muon": "Muon()",
        },
    ),
    "tf1": Library(
        "TensorFlow 1 (`tf.train`)",
        "Its RMSProp starts with a mean of squares of 1, its Adagrad with a sum of 0.1 and no epsilon.",
        {
            "sgd": "GradientDescentOptimizer",
            "momentum": "MomentumOptimizer",
            "nesterov": "MomentumOptimizer(use_nesterov=True)",
            "adagrad": "AdagradOptimizer",
            "rmsprop": "RMSPropOptimizer",
            "adadelta": "AdadeltaOptimizer",
            "adam": "AdamOptimizer",
            "ftrl": "FtrlOptimizer",
        },
    ),
    "optax": Library(
        "Optax",
        "Most of its optimizers have no default learning rate. Its RMSProp and Adagrad put epsilon under the "
        "root; its Yogi and Adagrad do not start at zero.",
        {
            "sgd": "sgd()",
            "momentum": "sgd(momentum=0.9)",
            "nesterov": "sgd(momentum=0.9, nesterov=True)",
            "adagrad": "adagrad()",
            "rmsprop": "rmsprop()",
            "adadelta": "adadelta()",
            "adam": "adam()",
            "adamw": "adamw()",
            "amsgrad": "amsgrad()",
            "adamax": "adamax()",
            "nadam": "nadam()",
            "radam": "radam()",
            "yogi": "yogi()",
            "adabelief": "adabelief()",
            "lion": "lion()",
            "signsgd": "sign_sgd()",
            "rprop": "rprop()",
            "lars": "lars()",
            "lamb": "lamb()",
            "adafactor": "adafactor()",
            "schedule_free_sgd": "contrib.schedule_free_sgd()",
            "schedule_free_adamw": "contrib.schedule_free_adamw()",
            "muon": "contrib.muon()",
        },
    ),
    "caffe": Library(
        "Caffe (solver `type`)",
        "Its momentum adds up steps, not gradients. Adam's `beta1` is the field `momentum`, which is 0 "
        "unless set. It clips before it adds weight decay.",
        {
            "sgd": "SGD",
            "momentum": "SGD with momentum",
            "nesterov": "Nesterov",
            "adagrad": "AdaGrad",
            "rmsprop": "RMSProp",
            "adadelta": "AdaDelta",
            "adam": "Adam",
        },
    ),
}
