"""`python -m trainer.training.watermarks`: makes the weights of `trainer.inference.watermarks`.

Nobody has labelled which faces of a dataset carry a watermark. So writing is drawn over half of its training images, as
stock agencies do it, and a small network learns to tell those apart. Some images carry writing already, and would
teach it wrongly: it is trained a second time without those that the first network found.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from trainer.data.splits import load_splits
from trainer.inference.watermarks import SIDE, build, prepare

WORDS = (
    "123RF", "agefotostock", "alamy", "bigstock", "CanStockPhoto", "Corbis", "depositphotos", "dreamstime", "fotolia",
    "Getty Images", "Image Source", "iStockphoto", "Jupiter", "Masterfile", "Photos.com", "pond5", "PREVIEW", "SAMPLE",
    "shutterstock", "stock photo", "SuperStock", "thinkstock", "visualphotos", "© photo", "www.photo.com",
)  # fmt: skip
FONTS = "DejaVuSans*.ttf", "DejaVuSerif*.ttf", "STIXGeneral*.ttf"
DRAWN = 6 * SIDE
"""Side in px at which writing is drawn, before it is made as small as the images."""
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """Teach the network that finds watermarks, and show what it finds."""

    output: Path
    """File for the weights; those in use are `trainer/inference/watermarks.safetensors`."""
    dataset: str = "fer2013"
    data_dir: str | None = None
    overlays: int = 4000
    """Drawn pieces of writing."""
    epochs: tuple[int, int] = (3, 8)
    """Of the first network, and of the second."""
    seed: int = 0
    sheet: Path | None = None
    """Write a picture of the 240 test images that it is surest of, surest first, to judge it by eye."""


def main() -> None:
    options, console = tyro.cli(Options, prog="python -m trainer.training.watermarks"), Console()
    options.output.touch()  # not after ten minutes of work
    splits = load_splits(options.dataset, options.data_dir)
    images, test = splits.train.images, splits.test.images
    torch.manual_seed(options.seed)
    generator = np.random.default_rng(options.seed)
    masks = torch.from_numpy(np.stack([draw(generator) for _ in range(options.overlays)])).float() / 255
    first = taught(images, masks, options.epochs[0], console)
    clean = images[answers(first, images) < 0.5]
    console.print(f"{len(images) - len(clean):,} of {len(images):,} are left out of the second.")
    network = taught(clean, masks, options.epochs[1], console)
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()  # what is counted below is what is kept
    halves = {name: parameter.data.half() for name, parameter in network.named_parameters()}
    state = network.state_dict() | halves
    save_file({name: value.contiguous() for name, value in state.items()}, options.output)
    found = answers(network, test)
    for threshold in (0.5, 0.8, 0.9, 0.95, 0.98):
        console.print(f"{int((found >= threshold).sum()):,} of {len(test):,} test images at {threshold}")
    if options.sheet:
        sheet(test[found.argsort(descending=True)[:240]], options.sheet)


def taught(images: Tensor, masks: Tensor, epochs: int, console: Console) -> nn.Module:
    """A network that tells images with writing over them from those without.

    Args:
        images: uint8 (N, 1, SIDE, SIDE). masks: float32 (M, SIDE, SIDE) in [0, 1], how much of each pixel is writing.
    """
    network = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    batches = len(images) // BATCH
    schedule = OneCycleLR(optimizer, 5e-3, total_steps=epochs * batches)
    for epoch in range(epochs):
        network.train()
        right = 0
        for batch in torch.randperm(len(images))[: batches * BATCH].split(BATCH):
            plain = images[batch].float() / 255
            plain = torch.where(_draw(plain) < 0.5, plain.flip(3), plain)
            marked = _draw(plain) < 0.5
            shown = torch.where(marked, written_over(plain, masks), plain).mul(255).round().byte()
            target = marked.flatten().long()
            logits = network(prepare(shown).contiguous(memory_format=torch.channels_last))
            nn.functional.cross_entropy(logits, target).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            right += int((logits.argmax(1) == target).sum())
        console.print(f"epoch {epoch + 1}/{epochs}: {right / (batches * BATCH):.3f} told apart")
    return network.eval()


def written_over(images: Tensor, masks: Tensor) -> Tensor:
    """The images, float32 (N, 1, SIDE, SIDE) in [0, 1], under writing that is more or less transparent."""
    mask = masks[torch.randint(len(masks), (len(images),))][:, None]
    opacity = 0.2 + 0.6 * _draw(images)
    grey = torch.where(
        _draw(images) < 0.5, _draw(images), 1 - 0.25 * _draw(images)
    )  # white more often than not
    shadow = mask.roll((1, 1), (2, 3)) * 0.5 * opacity * (_draw(images) < 0.3)
    under = images * (1 - shadow)
    return under.lerp(grey, mask * opacity)


def answers(network: nn.Module, images: Tensor) -> Tensor:
    """How likely each image, uint8 (N, 1, SIDE, SIDE), is to carry writing: float32 (N,)."""
    with torch.inference_mode():
        return torch.cat([network(prepare(part)).softmax(1)[:, 1] for part in images.split(512)])


def draw(generator: np.random.Generator) -> np.ndarray:
    """One piece of writing, white on black, uint8 (SIDE, SIDE): a line, lines over lines, or a cross with a word."""
    uniform, side = generator.uniform, int(1.6 * DRAWN)
    while True:
        canvas = Image.new("L", (side, side))
        pen, kind, word = ImageDraw.Draw(canvas), generator.random(), _word(generator)
        size = int(uniform(0.08, 0.3) * DRAWN)
        font = _font(generator, size)
        if kind < 0.6:
            across, down = uniform(-0.2, 0.5) * side, uniform(0.2, 0.75) * side
            pen.text((across, down), word, 255, font)
            if generator.random() < 0.3:
                below = across + uniform(-0.2, 0.2) * DRAWN, down + 1.3 * size
                pen.text(below, _word(generator), 255, _font(generator, max(8, size // 2)))
        elif kind < 0.8:
            step = int(pen.textlength(word, font) + uniform(0.2, 1.5) * size)
            for down in range(0, side, int(size * uniform(1.5, 4))):
                for across in range(-step if generator.random() < 0.5 else -step // 2, side, step):
                    pen.text((across, down), word, 255, font)
        else:
            middle, width = uniform(-0.2, 0.2) * side, int(generator.integers(2, 7))
            pen.line((0, middle, side, side + middle), 255, width)
            pen.line((0, side + middle, side, middle), 255, width)
            pen.text((0.3 * side, 0.45 * side), word, 255, font)
        if generator.random() < 0.25:
            canvas = canvas.rotate(generator.choice((-45, -30, 30, 45)), Image.Resampling.BILINEAR)
        edge = (side - DRAWN) // 2
        canvas = canvas.crop((edge, edge, edge + DRAWN, edge + DRAWN))
        mask = np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), np.uint8)
        if mask.mean() > 6:  # otherwise next to nothing of it is inside
            return mask


def sheet(images: Tensor, path: Path) -> None:
    """A picture of images, uint8 (N, 1, SIDE, SIDE), twenty in a row, at twice their size."""
    rows = images[: len(images) // 20 * 20].reshape(-1, 20, SIDE, SIDE)
    whole = rows.permute(0, 2, 1, 3).reshape(-1, 20 * SIDE).numpy()
    picture = Image.fromarray(whole)
    picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.LANCZOS).save(path)


def _word(generator: np.random.Generator) -> str:
    if generator.random() < 0.15:
        return str(generator.integers(10**4, 10**9))
    return str(generator.choice(WORDS))


def _font(generator: np.random.Generator, size: int) -> ImageFont.FreeTypeFont:
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"  # the only ones that are the same on every machine
    files = sorted(str(path) for pattern in FONTS for path in folder.glob(pattern))
    return ImageFont.truetype(str(generator.choice(files)), size)


def _draw(images: Tensor) -> Tensor:
    """One number in [0, 1) an image, float32 (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1)


if __name__ == "__main__":
    main()
