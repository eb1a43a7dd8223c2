"""The Markdown card of a trained network."""

from __future__ import annotations

from pathlib import Path

from protocol.cuts import W_PLUS

ERRORS = {
    "f": "f, 1.0 is the best number per channel",
    "f_map": "f, 1.0 is the best map per channel",
    "styles": "the fine layers' modulations, 1.0 is their mean",
    "vgg": "ST-LPIPS (VGG) of the image, 256 px",
    "psnr": "PSNR of the image, dB, 256 px",
    "identity": "squared distance of the faces' descriptors, the same person below 0.36",
}


FFHQ_LIMITS = (
    "Limits: it knows what the generator knows, faces. Faces much smaller than an aligned one lose their features,\n"
    "and what no face photo shows (hands, text, patterns) comes out as texture. The generator is MobileStyleGAN\n"
    "of the package random_face (Apache-2.0), which learned from FFHQ (a dataset under CC BY-NC-SA 4.0)."
)
OTHER_LIMITS = (
    "Limits: it knows what the generator knows, and follows the licence of the checkpoint that this came from."
)


def write_network(
    path: Path, *, domain: str, metadata: dict[str, str], parameters: int, metrics: dict[str, float]
) -> None:
    """Write the card of a trained network, a ``.md``: ``metadata`` as in its file, ``metrics`` on held-out samples."""
    cut, generator = metadata["cut"], metadata["generator"]
    if metadata["network"] == "encoder":
        size = f"{8 * int(cut)}x{8 * int(cut)}"
        title, what = f"Encoder for {cut}x{cut}", f"Image, {size} px, to f^o of generator `{generator}`."
    elif int(cut) == W_PLUS:
        title = "Encoder into W+"
        what = (
            f"Image, 256x256 px, to w_plus of generator `{generator}`. Our training of what IDinvert and pSP start "
            "from, not their authors' weights; its features are pooled over the image and over a 5x5 grid."
        )
    else:
        title = f"Detail head for {cut}x{cut}"
        what = f"Image, 256x256 px, to w_M+ of generator `{generator}`; ours, beyond the paper."
    lines = [
        f"# {title}",
        "",
        what,
        f"Body `{metadata['body']}`, {parameters / 1e6:.1f} M parameters, fp16. Made by `python -m export train`.",
        "",
        "- data: generator samples (`python -m export samples`), no photos",
        *(f"- stage {i}: {stage}" for i, stage in enumerate(metadata["training"].split("; then "), start=1)),
        "",
        "Held-out samples at psi 0.7; moved: shifted to 25 %, rotated to 35 degrees, scaled from 0.5 to 1.4, at once:",
        "",
        "| measure | plain | moved |",
        "|---|---|---|",
        *(
            f"| {text} | {metrics[name]:.3f} | {metrics['moved_' + name]:.3f} |"
            for name, text in ERRORS.items()
            if name in metrics and name != ("f" if metadata["network"] == "detail" else "styles")
        ),
        "",
        FFHQ_LIMITS if domain == "ffhq" else OTHER_LIMITS,
    ]
    partial = path.with_suffix(".part")
    partial.write_text("\n".join(lines) + "\n")
    partial.replace(path)
