"""One file to one picture: every format keeps its values, its depth and its channels."""

import io
import zlib
from multiprocessing import get_context

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageSequence

from fullrank.data import UnreadableImage, open_source
from fullrank.data.decode import MAX_PIXELS, decode
from fullrank.data.tiff import count_tiff_frames
from tests.unit.data.picture_files import encoded, noise, npy, png16, write_folder


def picture(content: bytes, frame: int = 0) -> np.ndarray:
    return decode(io.BytesIO(content), frame)[0]


def mode(content: bytes) -> str:
    return decode(io.BytesIO(content))[1]


def tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP", "TGA"])
def test_grey_or_colour_of_every_lossless_format(kind):
    image = noise(0)
    options = {"lossless": True} if kind == "WEBP" else {}
    if kind == "GIF":  # has palettes of 256 colours only
        image = image // 128 * 255
    np.testing.assert_array_equal(picture(encoded(image, kind, **options)), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_equals_pillow(channels):
    content = encoded(noise(1, channels=channels), "JPEG", quality=90)
    reference = np.asarray(Image.open(io.BytesIO(content))).reshape(12, 10, channels)
    np.testing.assert_array_equal(picture(content), reference)
    assert mode(content) == {1: "L", 3: "RGB"}[channels]


def test_cmyk_jpeg_becomes_rgb():
    file = io.BytesIO()
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(file, "JPEG", quality=100)  # no cyan, all magenta and yellow
    image = picture(file.getvalue())
    assert image.shape == (6, 8, 3)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(0), [255, 0, 0], atol=3)
    assert mode(file.getvalue()) == "CMYK"


def test_alpha_is_dropped_and_hidden_colours_stay():
    rgba = noise(2, channels=4)
    rgba[:6, :, 3] = 0
    np.testing.assert_array_equal(picture(encoded(rgba)), rgba[:, :, :3])
    assert mode(encoded(rgba)) == "RGBA"
    file = io.BytesIO()
    Image.merge("LA", [Image.fromarray(rgba[:, :, 0]), Image.fromarray(rgba[:, :, 3])]).save(file, "PNG")
    np.testing.assert_array_equal(picture(file.getvalue()), rgba[:, :, :1])


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
def test_palette_becomes_its_colours(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([250, 0, 10, 20, 200, 30, 40, 50, 150])
    image.putdata([0, 1, 2])
    file = io.BytesIO()
    image.save(file, "PNG", **({} if transparency is None else {"transparency": transparency}))
    np.testing.assert_array_equal(picture(file.getvalue()), [[[250, 0, 10], [20, 200, 30], [40, 50, 150]]])


def decode_damaged(files, readable):
    rng = np.random.default_rng(0)
    for i in range(1000):
        data = bytearray(files[i % len(files)])
        for place in rng.integers(2, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        try:
            readable.value += decode(io.BytesIO(data))[0].size > 0
        except Exception:
            continue


def test_damaged_files_never_end_the_process():
    """The decoders of JPEG and 16-bit PNG are compiled code; the latter's own library crashes on damage."""
    fork = get_context("fork")
    readable = fork.Value("i", 0)
    files = [encoded(noise(0), "JPEG"), png16(noise(0, dtype=np.uint16))]
    process = fork.Process(target=decode_damaged, args=(files, readable))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert 20 < readable.value < 980


def test_one_bit_becomes_black_and_white():
    bits = noise(3, channels=1)[:, :, 0] > 127
    file = io.BytesIO()
    Image.fromarray(bits).save(file, "PNG")
    np.testing.assert_array_equal(picture(file.getvalue())[:, :, 0], bits * 255)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_16_bits(channels):
    image = noise(4, channels=channels, dtype=np.uint16)
    read = picture(png16(image))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, image[:, :, : 1 if channels < 3 else 3])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiff_of_either_byte_order(byteorder, compression):
    image = noise(5, channels=3, dtype=np.uint16)
    options = {"photometric": "rgb", "byteorder": byteorder, "compression": compression}
    read = picture(tiff(image, **options))
    assert read.dtype == np.dtype("uint16")
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, image)


def test_16_bit_grey_with_a_compression_that_only_pillow_knows():
    image = noise(6, channels=1, dtype=np.uint16)
    np.testing.assert_array_equal(picture(encoded(image, "TIFF", compression="tiff_lzw")), image)


def test_white_is_zero_tiff_is_turned_round():
    image = noise(7, channels=1, dtype=np.uint16)
    read = picture(tiff(image[:, :, 0], photometric="miniswhite"))
    np.testing.assert_array_equal(read, 65535 - image)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_13_bands_of_a_geotiff_are_channels(planar):
    image = noise(8, channels=13, dtype=np.uint16)
    stored = image if planar == "contig" else np.ascontiguousarray(image.transpose(2, 0, 1))
    np.testing.assert_array_equal(picture(tiff(stored, planarconfig=planar, photometric="minisblack")), image)


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_8_bit_bands_without_a_colour_model_are_all_kept(channels):
    image = noise(8, 20, 16, channels)
    np.testing.assert_array_equal(picture(tiff(image, photometric="minisblack", planarconfig="contig")), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_of_a_tiff_is_dropped(dtype):
    image = noise(8, channels=4, dtype=dtype)
    content = tiff(image, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(picture(content), image[:, :, :3])


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("mode", ["P", "RGB", "L", "CMYK"])
def test_pages_that_only_pillow_can_decode(mode, compression):
    if compression == "jpeg" and mode == "P":
        pytest.skip("palettes and JPEG exclude each other")
    pages = [Image.fromarray(noise(i) // 64 * 64).convert(mode) for i in range(3)]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], compression=compression)
    assert count_tiff_frames(io.BytesIO(file.getvalue())) == 3
    for i, page in enumerate(ImageSequence.Iterator(Image.open(file))):
        reference = np.asarray(page if mode == "L" else page.convert("RGB")).reshape(12, 10, -1)
        np.testing.assert_array_equal(picture(file.getvalue(), i), reference)


def test_imagej_channels_are_channels_and_time_is_frames():
    movie = np.stack([noise(i, channels=2, dtype=np.uint16) for i in range(3)]).transpose(0, 3, 1, 2)
    content = tiff(movie, imagej=True, metadata={"axes": "TCYX"})
    for frame in range(3):
        np.testing.assert_array_equal(picture(content, frame), movie[frame].transpose(1, 2, 0))


def test_frames_are_found_where_the_channels_come_first():
    stack = np.stack([noise(i, channels=2, dtype=np.uint16) for i in range(5)]).transpose(3, 0, 1, 2)  # CZYX
    content = tiff(stack, ome=True, metadata={"axes": "CZYX"})
    np.testing.assert_array_equal(picture(content, 4), stack[:, 4].transpose(1, 2, 0))


def test_float_tiff_and_other_integers_become_float32():
    values = np.random.default_rng(9).normal(size=(12, 10))
    read = picture(tiff(values))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[:, :, 0], values.astype(np.float32))
    signed = np.array([[-1000, 3000]], np.int16)
    np.testing.assert_array_equal(picture(npy(signed)), signed[:, :, None].astype(np.float32))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [((12, 10), (12, 10, 1)), ((12, 10, 5), (12, 10, 5)), ((5, 12, 10), (12, 10, 5)), ((9, 9, 13), (9, 9, 13))],
)
def test_npy_axes(stored, expected):
    values = np.arange(np.prod(stored), dtype=np.uint16).reshape(stored)
    read = picture(npy(values))
    assert read.shape == expected
    back = read if stored[-1] == expected[-1] and len(stored) == 3 else read.transpose(2, 0, 1).reshape(stored)
    np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_stack_gives_its_pictures(order):
    stack = np.stack([noise(i, 20, 16, channels=13, dtype=np.uint16) for i in range(4)])
    content = npy(np.asarray(stack, order=order))
    for i in range(4):
        np.testing.assert_array_equal(picture(content, i), stack[i])


def test_exif_rotation_is_applied():
    image = noise(10)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    kinds = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}
    for kind, options in kinds.items():
        read = picture(encoded(image, kind, exif=exif, **options))
        assert read.shape == (10, 12, 3)
        difference = np.abs(read.astype(int) - np.rot90(image, -1)).mean()
        assert difference < 2, kind


def jpeg_bomb() -> bytes:
    content = bytearray(encoded(noise(11), "JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    return bytes(content)


def png_bomb() -> bytes:
    content = bytearray(encoded(noise(11)))
    content[16:24] = b"\x00\x00\xff\xff\x00\x00\xff\xff"
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def bmp_bomb() -> bytes:
    content = bytearray(encoded(noise(11), "BMP"))
    content[18:26] = (30_000).to_bytes(4, "little") * 2
    return bytes(content)


def tiff_bomb() -> bytes:
    content = bytearray(tiff(noise(11, channels=1, dtype=np.uint16)[:, :, 0]))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        for name in ("ImageWidth", "ImageLength"):
            place = tags[name].valueoffset
            content[place : place + 2] = (60_000).to_bytes(2, "little")
    return bytes(content)


@pytest.mark.parametrize("bomb", [jpeg_bomb, png_bomb, bmp_bomb, tiff_bomb])
def test_declared_size_is_checked_before_memory_is_taken(tmp_path, bomb):
    source = open_source(write_folder(tmp_path, {"a.png": encoded(noise(0)), "bomb.tif": bomb()}))
    with pytest.raises(UnreadableImage, match=rf"cannot read 'bomb.tif'.*more than {MAX_PIXELS:,} pixels"):
        source.read(1)


GOOD_PNG16 = png16(noise(12, 40, 40, dtype=np.uint16))
GOOD_JPEG = encoded(noise(12, 40, 40), "JPEG")
GOOD_PNG = encoded(noise(12, 40, 40))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am no picture", "not an image"),
        (GOOD_JPEG[: len(GOOD_JPEG) // 2], "truncated"),
        (GOOD_JPEG[:10], "truncated or damaged"),
        (GOOD_PNG[: len(GOOD_PNG) // 2], "."),
        (GOOD_PNG[:20], "."),
        (GOOD_PNG16[: len(GOOD_PNG16) // 2], "truncated or damaged"),
        (GOOD_PNG16[:500] + bytes(9) + GOOD_PNG16[509:], "."),
        (GOOD_PNG16[:28] + b"\x01" + GOOD_PNG16[29:], "interlaced"),
        (encoded(noise(12), "BMP")[:100], "truncated"),
        (tiff(noise(12, dtype=np.uint16), photometric="rgb")[:300], "."),
        (npy(noise(12))[:200], "truncated"),
        (npy(np.array([{"a": 1}, None])), "pickled"),
        (npy(np.zeros((2, 2), complex)), "complex128"),
        (npy(np.zeros(5)), "shape"),
        (npy(np.zeros((0, 5))), "shape"),
    ],
)
def test_broken_file_names_itself_and_the_reason(tmp_path, content, reason):
    source = open_source(write_folder(tmp_path, {"a/good.png": GOOD_PNG, "b/broken.jpg": content}))
    with pytest.raises(UnreadableImage, match=rf"^cannot read 'b/broken.jpg': .*{reason}") as caught:
        source.read(1)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(source.read(0), noise(12, 40, 40))
