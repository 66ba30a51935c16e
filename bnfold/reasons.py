"""Every reason for which a BatchNorm stays: its code, its sentence and its remedy, once.

The same text serves the exception-free result, `bnfold explain CODE`, the reports and `docs/reasons.md`, so
they cannot diverge. Codes are never reused: 1xx is the BatchNorm itself, 2xx the operator that its affine
meets, 3xx the topology, 4xx the numbers, 5xx a PyTorch module that is folded in place of a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum


class Situation(Enum):
    """What stays, and in what surroundings: the remedy fits it."""

    BATCHNORM = "BatchNorm"
    ARITHMETIC = "arithmetic"  # written as Mul, Div, Add and Sub
    PREPROCESSING = "preprocessing"  # the same, on an input of the model
    QUANTISED = "quantised"  # behind a quantised layer, or before one


WORDS = {
    Situation.ARITHMETIC: "the scale and shift",
    Situation.PREPROCESSING: "the normalisation of the input",
}
QUANTISED_FIRST = (
    "This model was quantised before its BatchNorms were folded: fold the float model, then quantise it."
)
BEFORE_THE_MODEL = "Nothing to fix; normalising the data before the model reads it would save the step."


@dataclass(frozen=True)
class Rule:
    """One way in which a fold can be impossible.

    Attributes:
        code: Stable identifier, `BN` and three digits.
        title: A few words, for tables.
        sentence: What stops the fold, with `{facts}` filled in per case.
        advice: What the user can do about it; `{it}` stands for what stays.
        instead: Other advice, by the situation that it is for.
    """

    code: str
    title: str
    sentence: str
    advice: str
    instead: Mapping[Situation, str] = field(default_factory=dict, hash=False)

    def __call__(self, **facts: object) -> Reason:
        """Make the reason for one case; `facts` are the names in `sentence`."""
        return Reason(self, {name: str(fact) for name, fact in facts.items()})

    @property
    def remedy(self) -> str:
        """What the user can do about a BatchNorm."""
        return self.remedy_for(Situation.BATCHNORM)

    @property
    def others(self) -> Mapping[str, str]:
        """The remedies of its own, by what they are for: `"the normalisation of the input"`."""
        return {WORDS[situation]: self.remedy_for(situation) for situation in self.instead}

    def remedy_for(self, situation: Situation) -> str:
        """What the user can do about it in one situation."""
        if situation is Situation.QUANTISED:
            return QUANTISED_FIRST
        return self.instead.get(situation, self.advice).replace("{it}", WORDS.get(situation, "the BatchNorm"))


@dataclass(frozen=True)
class Reason:
    """Why one affine stays where it is: a rule, the facts of the case, and what is around it."""

    rule: Rule
    facts: Mapping[str, str] = field(default_factory=dict)
    situation: Situation = Situation.BATCHNORM

    @property
    def code(self) -> str:
        """The rule's stable code."""
        return self.rule.code

    @property
    def title(self) -> str:
        """The rule's few words."""
        return self.rule.title

    @property
    def sentence(self) -> str:
        """What stops the fold, naming the node or value at which it stopped."""
        return self.rule.sentence.format_map(self.facts)

    @property
    def remedy(self) -> str:
        """What the user can do about it."""
        return self.rule.remedy_for(self.situation)

    @property
    def kind(self) -> tuple[str, ...]:
        """What this reason has in common with others that differ from it in names and numbers alone."""
        return (self.code, self.remedy, *(self.facts.get(fact, "") for fact in _KINDS))

    def within(self, situation: Situation) -> Reason:
        """The same reason in a situation; that a layer is quantised says most."""
        return self if self.situation is Situation.QUANTISED else replace(self, situation=situation)

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


_KINDS = ("operator", "setting", "pattern", "dtype", "attribute")  # facts that tell reasons of one code apart


TRAINING_MODE = Rule(
    "BN101",
    "runs in training mode",
    "{node} normalises with the statistics of each batch (training mode), so it is not a fixed affine map.",
    "Put the model in eval mode before it is exported (`model.eval()`), or fold the checkpoint instead.",
)
NOT_CONSTANT = Rule(
    "BN102",
    "parameters are not constant",
    "{value}, which {node} reads, is computed at run time, not stored in the model.",
    "Export the model with its statistics as initializers; inside a function, inline it (`--inline`).",
)
OVERRIDABLE_PARAMETER = Rule(
    "BN103",
    "a caller may replace its parameters",
    "{value}, which {node} reads, is an initializer that is also a graph input: callers may replace it.",
    "If no caller does, remove it from the graph's inputs (from IR version 4 on it need not be one).",
)
BAD_NUMBERS = Rule(
    "BN104",
    "its numbers are not usable",
    "{node} has {what}.",
    "Check the training: with such parameters the original model already gives NaN or infinity.",
)
NOT_FLOAT = Rule(
    "BN105",
    "type is not a float that can be folded",
    "{value} is of type {dtype}; only float16, bfloat16, float32 and float64 are folded.",
    "Export the model in one of these types.",
)
CALLER_ATTRIBUTE = Rule(
    "BN106",
    "an attribute is set by a function's caller",
    "{node} is in a function, whose caller sets its attribute {attribute}.",
    "Inline the function (`--inline`); the attribute is then known for each call.",
)
DATA_STATISTICS = Rule(
    "BN107",
    "statistics come from the data",
    "{node} ({operator}) computes its mean and variance from each input, so it is not a fixed affine map.",
    "Nothing to fix: this is not a BatchNorm, and no tool can fold it.",
)

ON_REQUEST = Rule(
    "BN108",
    "kept on request",
    "{node} is kept: either `--keep` names it, or a fold that included it was rolled back.",
    "Leave its name out of `--keep`. If it was rolled back, please report this with the model.",
)

OPERATOR = Rule(
    "BN201",
    "an affine cannot pass an operator",
    "{operator} ({node}) does not commute with a scale and a shift.",
    "If you can change the architecture, put {it} directly after a Conv or Linear.",
    {Situation.PREPROCESSING: BEFORE_THE_MODEL},
)
WEIGHT_NOT_CONSTANT = Rule(
    "BN202",
    "a weight is not constant",
    "{value}, a weight of {node}, is computed at run time, not stored in the model.",
    "Export the model with constant weights; inside a function, inline it (`--inline`).",
)
WEIGHT_OVERRIDABLE = Rule(
    "BN203",
    "a caller may replace the weight",
    "{value}, read by {node}, is an initializer that is also a graph input: callers may replace it.",
    "If no caller does, remove it from the graph's inputs (from IR version 4 on it need not be one).",
)
AXIS = Rule(
    "BN204",
    "varies along an axis that the weights cannot express",
    "at {node} the affine varies along axis {axes}; {operator} can only take one along axis {allowed}.",
    "Check the layout: the channels of {it} are not those of that operator.",
)
PADDING = Rule(
    "BN205",
    "a shift would meet implicit zeros",
    "{node} pads with zeros, which the shift would not reach.",
    "Put the BatchNorm after the operator, or pad explicitly with the running mean; a BatchNorm with "
    "β = μ·γ/√(σ²+ε) has no shift and is folded.",
    {
        Situation.ARITHMETIC: "Put {it} after the operator, or pad with the value that becomes zero.",
        Situation.PREPROCESSING: BEFORE_THE_MODEL,
    },
)
NEGATIVE_SCALE = Rule(
    "BN206",
    "a negative scale would reverse the order",
    "{operator} ({node}) commutes only with scales that are not negative, and {count} are negative.",
    "Train with γ ≥ 0 there, or put the BatchNorm before the operator and train again.",
    {Situation.ARITHMETIC: "Put {it} before the operator, if you can change the architecture."},
)
SHIFT = Rule(
    "BN207",
    "a shift cannot pass",
    "{operator} ({node}) lets a scale pass, but not a shift.",
    "If you can change the architecture, put {it} before that operator.",
)
UNKNOWN_SHAPE = Rule(
    "BN208",
    "a shape is not known",
    "the shape of {value} is not known well enough at {node} to prove where the channels go.",
    "Export with fixed sizes for all axes but the batch, or run shape inference with the real input sizes.",
)
MIXED_AXES = Rule(
    "BN209",
    "a reshape mixes the channels with other axes",
    "{node} reshapes {before} to {after}, which mixes the channel axis with others.",
    "Put {it} on the other side of the reshape.",
)
SETTING = Rule(
    "BN210",
    "an operator's setting prevents it",
    "{operator} ({node}) has {setting}.",
    "Change that setting before the export, if the model allows it.",
)
BIAS_NOT_CONSTANT = Rule(
    "BN211",
    "the bias is not constant",
    "{value}, the bias of {node}, is computed at run time or may be replaced by a caller.",
    "Export the model with a constant bias.",
)
TYPE_CHANGE = Rule(
    "BN212",
    "a cast rounds in between",
    "{node} casts from {before} to {after}, and rounding does not commute with a scale.",
    "Compute {it} in the type of the layer before it.",
)
BROADCAST = Rule(
    "BN213",
    "an operand is broadcast along the channels",
    "{value}, which {node} reads, is the same for all channels, so it cannot take a scale for each channel.",
    "If you can change the architecture, put {it} on the operand that has channels.",
)
TERMS = Rule(
    "BN214",
    "the other terms of a sum would have to change too",
    "{node} adds other terms, which would have to be divided by the scale.",
    "Nothing to fix where they come from an activation; parallel convolutions are merged instead.",
)
NO_RULE = Rule(
    "BN215",
    "an operator without a rule",
    "bnfold knows no rule for {operator} ({node}).",
    "If you can change the architecture, put {it} directly after a Conv or Linear; if a scale and a shift "
    "could pass this operator, please report it.",
    {Situation.PREPROCESSING: BEFORE_THE_MODEL},
)
INVALID = Rule(
    "BN216",
    "an operator contradicts its own definition",
    "{operator} ({node}) is not valid: it has {fault}.",
    "The file is damaged, or was changed by hand: save or export it again.",
)

OTHER_READERS = Rule(
    "BN301",
    "the value is read elsewhere too",
    "{value} is read by {node} and by {others}, which cannot take the change.",
    "Nothing to fix where it is concatenated again and again: what one reader needs, the others would have "
    "to undo.",
)
GRAPH_OUTPUT = Rule(
    "BN302",
    "the value is an output",
    "{value} is an output of the graph, so its numbers must not change.",
    "Remove it from the outputs if nothing uses it.",
)
OTHER_GRAPH = Rule(
    "BN303",
    "the layer is in another graph",
    "{value} crosses the border of a subgraph at {node}; a subgraph may run zero or many times.",
    "Move {it} into the same graph as its layer.",
)
NO_PRODUCER = Rule(
    "BN304",
    "nothing before it to fold into",
    "{value} is an input of the graph or a constant; no operator before {node} has weights.",
    "Nothing to fix. A following layer can absorb it if that layer does not pad with zeros.",
    {Situation.PREPROCESSING: BEFORE_THE_MODEL},
)
MORE_NODES = Rule(
    "BN305",
    "the fold would add nodes",
    "the fold would add {inserted} bias Add(s), the first at {node}, and remove only {removed} node(s).",
    "Give the linear layers a bias before export.",
)
TOO_FAR = Rule(
    "BN306",
    "the search was stopped",
    "after {steps} steps no place was found for the affine of {node}.",
    "Please report this with the model: no model should reach this limit.",
)
BRANCHES_DIFFER = Rule(
    "BN307",
    "a parallel branch that does not match the others",
    "{branch} runs parallel to {others} into {node}, but {difference}.",
    "Give parallel branches the same stride, and padding that keeps their outputs aligned.",
)
BRANCHES_COST = Rule(
    "BN308",
    "merging parallel branches would cost more",
    "{branch} and {others}, which {node} adds up, would need {after} multiply-adds for each position "
    "instead of {before}.",
    "Nothing to fix: the separate branches cost less than one convolution.",
)
PATTERN = Rule(
    "BN309",
    "it would break up a pattern that runtimes recognise",
    "{node} is part of a {pattern} written out in several operators, which runtimes run as one.",
    "Nothing to fix: the model runs faster as it is.",
)
RUNTIME_WORSE = Rule(
    "BN310",
    "the runtime's own graph would become worse",
    "with {node} folded, the graph that ONNX Runtime makes of the model would have {what}.",
    "Nothing to fix: the fold is exact, and the model runs faster without it.",
)
STREAM_SIGN = Rule(
    "BN311",
    "a scale that is not positive, on a residual stream",
    "{count} scales of {node} are not positive; the sum that it reads is read elsewhere too, and could carry "
    "its shift only if all of them were.",
    "Nothing to fix: a channel whose sign changes passes no activation.",
)
STREAM_SHIFT = Rule(
    "BN312",
    "a shift too large for a residual stream",
    "{node} would shift {value}, which is read elsewhere too, by {factor} times the size of its numbers, and "
    "cost them digits.",
    "Nothing to fix, unless γ or σ² near zero is a mistake.",
)

OVERFLOW = Rule(
    "BN401",
    "folded weights would overflow",
    "the folded constants of {node} exceed the range of {dtype}.",
    "Export in a wider type, or check the statistics: a variance near 0 makes a huge scale.",
)
UNDERFLOW = Rule(
    "BN402",
    "folded weights would lose precision",
    "the folded constants of {node} are so small that {dtype} keeps only a few of their digits.",
    "Export in a wider type: the original keeps these digits because it scales in a second step.",
)
ACTIVATIONS = Rule(
    "BN403",
    "activations could leave the range of their type",
    "{value} would grow by a factor of up to {factor}, and may then exceed the range of {dtype}.",
    "Fold the model in float32, and convert it to half precision afterwards.",
)

NO_PLACE = Rule(
    "BN501",
    "the module has no place for the folded numbers",
    "in PyTorch {node} must stay as it is: {why}.",
    "Export the module to ONNX (`bnfold export`), where every node can be changed separately.",
)
HOOK = Rule(
    "BN502",
    "a hook sees the values",
    "in PyTorch {node} must stay as it is: a hook of {module} sees values that would change.",
    "Remove the hook before folding; register it on the folded module if it accepts changed values.",
)
DEPENDS = Rule(
    "BN503",
    "the module's code depends on it",
    "in PyTorch {node} must stay as it is, since the forward depends on it in a way that its graph does not"
    " show. {problem}",
    "Make the forward independent of the types, weights and biases of its layers and of sizes; or export the"
    " module to ONNX for one size (`bnfold export`).",
)

RULES = {rule.code: rule for rule in list(vars().values()) if isinstance(rule, Rule)}
