"""Float attributes as a file holds them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.graph.scopes import nodes


def round_float_attributes(model: ir.Model) -> None:
    """Round the float attributes of every node to float32, in place.

    An exporter's model in memory has Python's floats. A file holds float32, so that an epsilon of 1e-5 is
    another number in it, and a model of float64 weights would be folded with the wrong one.
    """
    for node in nodes(model):
        for name, attribute in node.attributes.data.items():
            if not isinstance(attribute, ir.Attr) or attribute.is_ref():
                continue
            if attribute.type is ir.AttributeType.FLOAT:
                node.attributes[name] = ir.AttrFloat32(name, float(np.float32(attribute.as_float())))
            elif attribute.type is ir.AttributeType.FLOATS:
                rounded: list[float] = np.asarray(attribute.as_floats(), np.float32).tolist()
                node.attributes[name] = ir.AttrFloat32s(name, rounded)
