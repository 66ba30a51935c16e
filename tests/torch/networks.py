"""Networks built as well-known libraries build them, small: what people bring as a file.

`NETWORKS` has a factory and the shape of an input for each; `trained` gives one of them in eval mode with
statistics that no channel shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from models.batchnorms import seeded_statistics


class BasicBlock(nn.Module):
    """torchvision's: two 3×3 convolutions, and a `downsample` on the shortcut where the shape changes."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)  # called twice
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """torchvision's ResNet-18, with fewer channels: 20 BatchNorms."""

    def __init__(self, widths: Sequence[int] = (8, 8, 16, 24), num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        before = widths[0]
        for number, width in enumerate(widths, 1):
            blocks = BasicBlock(before, width, 1 if number == 1 else 2), BasicBlock(width, width)
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            before = width
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(before, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, a depthwise convolution, and narrow without an activation."""

    def __init__(self, channels: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = channels * expand
        self.use_res_connect = stride == 1 and channels == out
        self.conv = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True)
            ),
            nn.Sequential(
                nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU6(inplace=True),
            ),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNet(nn.Module):
    """MobileNetV2's way of building: 11 BatchNorms."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
            InvertedResidual(8, 8, 1, 2),
            InvertedResidual(8, 12, 2, 3),
            InvertedResidual(12, 12, 1, 3),
            nn.Sequential(nn.Conv2d(12, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class RepVGGBlock(nn.Module):
    """A 3×3, a 1×1 and an identity branch, each with its BatchNorm, added up before the activation."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.rbr_dense = nn.Sequential()
        self.rbr_dense.add_module("conv", nn.Conv2d(channels, out, 3, stride, padding=1, bias=False))
        self.rbr_dense.add_module("bn", nn.BatchNorm2d(out))
        self.rbr_1x1 = nn.Sequential()
        self.rbr_1x1.add_module("conv", nn.Conv2d(channels, out, 1, stride, bias=False))
        self.rbr_1x1.add_module("bn", nn.BatchNorm2d(out))
        self.rbr_identity = nn.BatchNorm2d(channels) if out == channels and stride == 1 else None
        self.nonlinearity = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity: Any = 0 if self.rbr_identity is None else self.rbr_identity(x)
        return self.nonlinearity(self.rbr_dense(x) + self.rbr_1x1(x) + identity)


class RepVGG(nn.Module):
    """Three blocks of parallel branches: 8 BatchNorms."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stage0 = RepVGGBlock(3, 8, 2)
        self.stage1 = nn.Sequential(RepVGGBlock(8, 8), RepVGGBlock(8, 8))
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.gap(self.stage1(self.stage0(x))).flatten(1))


class DCGANGenerator(nn.Module):
    """DCGAN's generator: transposed convolutions, 3 BatchNorms."""

    def __init__(self, latent: int = 12, features: int = 8) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(latent, features * 4, 4, 1, 0, bias=False),
            nn.BatchNorm2d(features * 4),
            nn.ReLU(True),
            nn.ConvTranspose2d(features * 4, features * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(features * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(features * 2, features, 4, 2, 1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(True),
            nn.ConvTranspose2d(features, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.main(z)


class TNet(nn.Module):
    """PointNet's small network that finds a matrix to turn its input by."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.conv1 = nn.Conv1d(k, 16, 1)
        self.conv2 = nn.Conv1d(16, 32, 1)
        self.fc1 = nn.Linear(32, 16)
        self.fc2 = nn.Linear(16, k * k)
        self.bn1 = nn.BatchNorm1d(16)
        self.bn2 = nn.BatchNorm1d(32)
        self.bn3 = nn.BatchNorm1d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = torch.max(x, 2)[0]
        x = self.fc2(functional.relu(self.bn3(self.fc1(x))))
        return x.view(-1, self.k, self.k) + torch.eye(self.k, dtype=x.dtype, device=x.device)


class PointNet(nn.Module):
    """PointNet over `[N, 3, points]`: Conv1d and Linear, BatchNorm1d over both: 7 BatchNorms."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stn = TNet(3)
        self.conv1 = nn.Conv1d(3, 16, 1)
        self.conv2 = nn.Conv1d(16, 32, 1)
        self.bn1 = nn.BatchNorm1d(16)
        self.bn2 = nn.BatchNorm1d(32)
        self.fc1 = nn.Linear(32, 16)
        self.fc2 = nn.Linear(16, 16)
        self.fc3 = nn.Linear(16, num_classes)
        self.dropout = nn.Dropout(0.3)
        self.bn3 = nn.BatchNorm1d(16)
        self.bn4 = nn.BatchNorm1d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = torch.bmm(x.transpose(2, 1), self.stn(x)).transpose(2, 1)
        x = functional.relu(self.bn1(self.conv1(turned)))
        x = torch.max(self.bn2(self.conv2(x)), 2)[0]
        x = functional.relu(self.bn3(self.fc1(x)))
        x = functional.relu(self.bn4(self.dropout(self.fc2(x))))
        return functional.log_softmax(self.fc3(x), dim=1)


class LinearNorm(nn.Module):
    """LeViT's: a linear layer over tokens `[N, L, C]`, and a BatchNorm1d over all tokens as one batch."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, out, bias=False)
        self.bn = nn.BatchNorm1d(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return self.bn(x.flatten(0, 1)).reshape_as(x)


class LeViTBlock(nn.Module):
    """Attention and a multilayer perceptron with LinearNorm in every place, each with its shortcut."""

    def __init__(self, features: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.size = heads, features // heads
        self.qkv = LinearNorm(features, 3 * features)
        self.proj = nn.Sequential(nn.Hardswish(), LinearNorm(features, features))
        self.mlp = nn.Sequential(
            LinearNorm(features, 2 * features), nn.Hardswish(), LinearNorm(2 * features, features)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, features = x.shape
        qkv = self.qkv(x).view(batch, length, self.heads, 3 * self.size)
        q, k, v = qkv.transpose(1, 2).split(self.size, dim=3)
        attention = (q @ k.transpose(-2, -1) * self.size**-0.5).softmax(dim=-1)
        x = x + self.proj((attention @ v).transpose(1, 2).reshape(batch, length, features))
        return x + self.mlp(x)


class LeViT(nn.Module):
    """LeViT's way of building: a convolutional stem, attention over tokens, a normed head: 7 BatchNorms."""

    def __init__(self, features: int = 16, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.add_module("c", nn.Conv2d(3, 8, 3, 2, padding=1, bias=False))
        self.stem.add_module("bn", nn.BatchNorm2d(8))
        self.stem.add_module("act", nn.Hardswish())
        self.stem.add_module("c2", nn.Conv2d(8, features, 3, 2, padding=1, bias=False))
        self.stem.add_module("bn2", nn.BatchNorm2d(features))
        self.block = LeViTBlock(features)
        self.head = nn.Sequential(nn.BatchNorm1d(features), nn.Linear(features, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.block(x).mean(1))


class BatchNormAct2d(nn.BatchNorm2d):
    """timm's: a BatchNorm that drops and activates as well, and calls `functional.batch_norm` itself."""

    def __init__(self, num_features: int, apply_act: bool = True) -> None:
        super().__init__(num_features)
        self.drop = nn.Identity()
        self.act = nn.SiLU(inplace=True) if apply_act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )
        return self.act(self.drop(x))


class SqueezeExcite(nn.Module):
    """A gate for every channel, from the mean of all."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = nn.SiLU(inplace=True)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.conv_expand(self.act1(self.conv_reduce(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class TimmBlock(nn.Module):
    """timm's MBConv: pointwise, depthwise, squeeze and excite, pointwise."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 2 * channels
        self.conv_pw = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn1 = BatchNormAct2d(hidden)
        self.conv_dw = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.bn2 = BatchNormAct2d(hidden)
        self.se = SqueezeExcite(hidden, 4)
        self.conv_pwl = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn3 = BatchNormAct2d(channels, apply_act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        return self.bn3(self.conv_pwl(self.se(y))) + x


class TimmNet(nn.Module):
    """timm's way of building an EfficientNet, with BatchNormAct2d everywhere: 8 BatchNorms."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 8, 3, 2, padding=1, bias=False)
        self.bn1 = BatchNormAct2d(8)
        self.blocks = nn.Sequential(TimmBlock(8), TimmBlock(8))
        self.conv_head = nn.Conv2d(8, 16, 1, bias=False)
        self.bn2 = BatchNormAct2d(16)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn2(self.conv_head(self.blocks(self.bn1(self.conv_stem(x)))))
        return self.classifier(self.global_pool(x).flatten(1))


NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "resnet": (ResNet, (1, 3, 32, 32)),
    "mobilenet": (MobileNet, (1, 3, 16, 16)),
    "repvgg": (RepVGG, (1, 3, 16, 16)),
    "dcgan": (DCGANGenerator, (1, 12, 1, 1)),
    "pointnet": (PointNet, (1, 3, 24)),
    "levit": (LeViT, (1, 3, 16, 16)),
    "timm": (TimmNet, (1, 3, 16, 16)),
}


def trained(name: str, seed: int = 0, **arguments: Any) -> nn.Module:
    """One of `NETWORKS` in eval mode, as if trained: random weights, random statistics.

    Args:
        name: Of the network.
        seed: Of every number in it.
        **arguments: For its class.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NETWORKS[name][0](**arguments)
    return seeded_statistics(network, seed).eval()


def example(name: str, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A random input for one of `NETWORKS`, standard normal."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *NETWORKS[name][1][1:])
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
