"""What `fullrank methods` says: complete, readable, and true of the settings that the commands give."""

import inspect
import shlex
from dataclasses import replace

import pytest
from rich.console import Console

from fullrank import arguments, methods
from fullrank.errors import InputError
from fullrank.methods import Optimization
from fullrank.runs.catalogue import describe_methods
from fullrank.runs.in_words import optimization_rows, schedule_words, view_rows
from fullrank.runs.settings import method_options, resolve, switch_names, usual_warmup
from fullrank.schedules import Schedule
from fullrank.training.optimizer import optimization_for
from fullrank.views import View, infomin_views, pirl_views, vicreg_views


def shown(result, width):
    """What stands on a terminal of this width."""
    console = Console(width=width, soft_wrap=True, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(result.render())
    return capture.get()


@pytest.fixture(params=methods.names())
def name(request):
    return request.param


@pytest.mark.parametrize("width", [80, 120])
def test_the_tree_holds_every_method_below_its_family(width):
    tree = describe_methods()
    text = shown(tree, width)
    assert max(map(len, text.splitlines())) <= width
    assert list(tree.families) == [family for family in methods.FAMILIES if family in tree.families]
    below = {line.split()[1]: position for position, line in enumerate(text.splitlines()) if "── " in line}
    assert sorted(below) == methods.names()
    for family, pages in tree.families.items():
        heading = text.splitlines().index(next(line for line in text.splitlines() if line.rstrip() == family))
        assert all(below[page.name] > heading for page in pages)
    for name in methods.names():
        venue = methods.get(name).paper.split(", arXiv")[0].split()[0]
        assert venue in text.splitlines()[below[name]]


@pytest.mark.parametrize("width", [80, 120])
def test_a_page_fits_the_terminal_but_for_commands_to_copy(name, width):
    page = describe_methods(name)
    lines = shown(page, width).splitlines()
    assert not [line for line in lines if len(line) > width and "fullrank train" not in line]
    words = " ".join(" ".join(lines).split())
    for told in (page.equation, page.paper, page.summary, *page.notes, *page.sources):
        assert told in words
    assert all(f"--{option}" in words for option in method_options(name))


def test_a_page_explains_every_option(name):
    page = describe_methods(name)
    options = {option.name: option for option in [*page.options, *page.switches]}
    assert {option: each.default for option, each in options.items()} == method_options(name)
    assert not [option for option, each in options.items() if not each.meaning]
    assert page.equation in inspect.getmodule(methods.get(name)).__doc__
    assert page.to_dict()["name"] == name


def test_the_published_command_gives_the_published_numbers(name):
    command = describe_methods(name).commands["with the published numbers"]
    words = shlex.split(command)
    assert words[:2] == ["fullrank", "train"]
    settings = resolve(arguments.parse("train", words[2:], with_json=False))
    published = methods.get(name).published
    for number in ("optimizer", "learning_rate", "bias_learning_rate", "weight_decay", "batch_size", "epochs"):
        assert getattr(settings, number) == getattr(published, number), number
    assert settings.end_factor == published.schedule.end_factor
    if settings.warmup_epochs is None:
        settings.warmup_epochs = usual_warmup(published, published.epochs)
    assert optimization_for(published, settings) == published
    assert settings.method_options == method_options(name)


def test_switches_are_those_of_a_siamese_network():
    assert {option.name for option in describe_methods("byol").switches} == set(switch_names())
    own = {option.name for option in describe_methods("dino").options}
    assert {"momentum", "batch_norm"} <= own
    assert not describe_methods("dino").switches


def test_what_cannot_be_asked_has_its_reason():
    general = {name: describe_methods(name).general for name in ("vicreg", "byol", "vse", "cmc")}
    branches = {name: words["--branches separate, --backbone2"] for name, words in general.items()}
    assert branches["vicreg"] == "yes"
    assert branches["byol"].startswith("no: the momentum encoder")
    assert "captions" in branches["vse"]
    assert branches["cmc"] == "always two networks"
    assert general["vicreg"]["--accumulate"].startswith("no: its loss compares")
    assert general["byol"]["--accumulate"] == "yes"


def test_commands_name_the_captions_that_a_method_needs():
    assert "--captions" in describe_methods("vse").commands["on your pictures"]
    assert "--captions" not in describe_methods("vicreg").commands["on your pictures"]


def test_a_recipe_of_the_package_is_named_with_its_own_command():
    assert "--recipe vicreg-imagenet" in describe_methods("vicreg").commands["recipe vicreg-imagenet"]


def test_a_wrong_name_gets_the_near_ones_and_all():
    with pytest.raises(InputError) as error:
        describe_methods("SimSam")
    assert "did you mean 'simsiam'" in str(error.value)
    assert all(name in str(error.value) for name in methods.names())


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Schedule(), "10 epochs of linear warm-up from 0, then half a cosine to 0.001 of the highest"),
        (Schedule(0, end_factor=0.0, per_epoch=True), "half a cosine to 0, changed between epochs only"),
        (Schedule(0, milestones=(0.6, 0.8)), "times 0.1 after 60 % and 80 % of the run"),
        (Schedule(0, milestones=(1 / 3,)), "times 0.1 after 33.3 % of the run"),
        (Schedule(0, end_factor=1), "constant"),
        (
            Schedule(15, start_factor=0.2, end_factor=1e-6, stretch=1.25),
            "15 epochs of linear warm-up from 0.2 of the highest, then half a cosine to 1e-6 of the highest over 1.25 "
            "times the run, cut off at its end",
        ),
    ],
)
def test_schedules_in_words(schedule, words):
    assert schedule_words(schedule) == words


def test_an_optimiser_in_words():
    published = Optimization("adamw", 1.5e-4, 0.05, 4096, 800, options={"betas": (0.9, 0.95)})
    rows = optimization_rows(replace(published, no_decay=("*.pos_embed",), weight_decay_end=0.4))
    assert rows["optimiser"] == "ADAMW, betas 0.9, 0.95"
    assert rows["learning rate"] == "0.00015 per 256 samples, 0.0024 for the batch"
    assert rows["weight decay"] == "0.05, going to 0.4 along a cosine, not on biases and norms, nor on *.pos_embed"
    rates = replace(published, bias_learning_rate=0.0048, constant_rate=("network.predictor.*",), decays_1d=True)
    expected = "; 0.0048 per 256 for biases and norms; constant for network.predictor.*"
    assert optimization_rows(rates)["learning rate"].endswith(expected)
    assert optimization_rows(rates)["weight decay"] == "0.05, on every parameter"


def test_views_side_by_side():
    rows = view_rows(vicreg_views(224))
    assert rows["number"] == ["1", "1"]
    assert rows["blur"] == ["always: sigma 0.1 to 2 px", "p 0.1: sigma 0.1 to 2 px"]
    assert rows["solarize"] == ["-", "p 0.2: from 0.502 up"]
    assert "puzzle" not in rows
    rows = view_rows((View(), View(), View(size=96, count=6), View(255, grid=3, piece=64, pieces=4)))
    assert rows["number"] == ["2", "6", "1"]
    assert rows["puzzle"] == ["-", "-", "3 x 3 pieces of 64 px, 4 kept, colours each"]
    rows = view_rows(infomin_views(224))
    assert rows["puzzle"] == ["-", "3 x 3 pieces of 64 px, moved by 0 to 21 px, colours together"]
    assert rows["RandAugment"] == ["2 operations, p 0.5 each", "-"]
    assert view_rows(pirl_views(224))["posterize, sharpness, solarize, autocontrast"] == ["p 0.66", "p 0.66"]
