"""The page to drop a video on: one or two models, a budget, an upload or an example; served by Gradio.

Nothing that a visitor sends is executed or kept: files up to a size are taken while there is room, only videos are
opened, by ffmpeg with its limits, and all are deleted when the server stops.
"""

from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.app.answer import WHOLE, Answer, ShownModel
from pipelines.app.examples import Example
from preprocessing.datasets.videos import VIDEO_EXTENSIONS
from preprocessing.schema import UserError

FIT_FRAMES = """() => addEventListener("message", event => {
  for (const frame of document.querySelectorAll(".answer iframe"))
    if (frame.contentWindow === event.source && event.data.height) frame.style.height = event.data.height + "px";
})"""
"""Script of the page: a model's own page says how tall it is."""
MOST_UPLOADS = 10
"""Uploads of the largest size for which there is room; each is deleted after an hour."""
CSS = """
.gradio-container { max-width: 1400px !important; }
footer { display: none !important; }
.answer iframe { width: 100%; border: 0; border-radius: 12px; }
"""


class RoomForUploads:
    """What stands before the page (ASGI): refuses an upload while those that are kept take more than `room` bytes."""

    def __init__(self, app: Any, folder: Path, room: int) -> None:
        self.app, self.folder, self.room = app, folder, room

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/upload") and self._is_full():
            text = b'{"detail": "too many uploads are kept: try again in an hour"}'
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
            await send({"type": "http.response.start", "status": 507, "headers": headers})
            await send({"type": "http.response.body", "body": text})
            return
        await self.app(scope, receive, send)

    def _is_full(self) -> bool:
        taken = 0
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # its hour is over
                taken += path.stat().st_size
        return taken > self.room


@contextmanager
def serving(
    models: Sequence[ShownModel], examples: Sequence[Example], *, host: str, port: int, max_mb: int
) -> Iterator[str]:
    """Serve the page while the context is open; its address. Raises UserError if the port is taken."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # asks nobody anything
    with tempfile.TemporaryDirectory(prefix="adafocus-app-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = build(models, examples)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                max_file_size=max_mb * 1_000_000,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                inbrowser=False,
                show_error=True,
                enable_monitoring=False,
                footer_links=[],
                app_kwargs={"middleware": [(RoomForUploads, (Path(uploads), MOST_UPLOADS * max_mb * 1_000_000), {})]},
                **looks(),
            )
        except OSError as error:
            raise UserError(f"port {port} of {host} cannot be used ({error}): give --port") from None
        try:
            yield str(address)
        finally:
            page.close(verbose=False)


def looks() -> dict[str, Any]:
    """Theme, style and script: fonts of the system, for the page loads nothing from elsewhere."""
    gradio = _library()
    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"], primary_hue="green")
    return {"theme": theme, "css": CSS, "js": FIT_FRAMES}


def build(models: Sequence[ShownModel], examples: Sequence[Example]) -> Any:
    """The page as Gradio's blocks."""
    gradio = _library()
    by_title = {example.title: example for example in examples}

    def show(file: str | None, title: str | None, percent: float) -> list[Any]:
        video = Path(file) if file else by_title.get(title or "")
        if video is None:
            raise gradio.Error("Upload a video, or choose an example.", print_exception=False)
        values: list[Any] = []
        for model in models:
            try:
                values += _shown(model.answer(video, percent))
            except UserError as error:
                raise gradio.Error(html.escape(str(error)), print_exception=False) from None
        return values

    with gradio.Blocks(title="AdaFocus", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gradio.Markdown("# AdaFocus\nWhat a video shows, where the model looked, and what that cost.")
        with gradio.Row():
            file = gradio.File(label="A video", file_types=list(VIDEO_EXTENSIONS), height=150)
            with gradio.Column():
                chosen = gradio.Dropdown(list(by_title), value=None, label="or an example", visible=bool(by_title))
                budget = gradio.Slider(
                    5,
                    WHOLE,
                    WHOLE,
                    step=5,
                    label="Budget, in percent of a whole clip's compute",
                    info="Below 100 the model stops when it is sure.",
                    visible=any(model.calibration for model in models),
                    elem_id="budget",
                )
                button = gradio.Button("Predict", variant="primary")
        outputs = []
        with gradio.Row():
            for model in models:
                with gradio.Column(elem_classes="answer"):
                    gradio.Markdown(f"### {html.escape(model.name)}")
                    outputs += [gradio.Markdown(elem_classes="cost"), gradio.HTML()]
        events: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "models", "api_name": False}
        button.click(show, [file, chosen, budget], outputs, **events)
        budget.release(show, [file, chosen, budget], outputs, **events)
        chosen.input(lambda: None, None, file, api_name=False).then(show, [file, chosen, budget], outputs, **events)
        file.upload(lambda: None, None, chosen, api_name=False).then(show, [file, chosen, budget], outputs, **events)
    page.queue(max_size=16)
    return page


def _shown(answer: Answer) -> list[Any]:
    """Values of a model's components. Its page runs in a frame that may do nothing but draw itself."""
    frame = f'<iframe sandbox="allow-scripts" height="900" srcdoc="{html.escape(answer.html)}"></iframe>'
    return [html.escape(answer.summary, quote=False), frame]


def _library() -> Any:
    try:
        import gradio
    except ModuleNotFoundError:
        raise UserError("the page needs Gradio: in a checkout of AdaFocus, pip install '.[app]'") from None
    return gradio
