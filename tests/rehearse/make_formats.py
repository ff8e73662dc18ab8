"""Writes tests/rehearse/formats: small files of each format, by the formats' own libraries.

Run with a Python that has numpy, pyarrow and tfrecord (pip install numpy pyarrow tfrecord). The
records carry texts that tests/rehearse/formats_test.cpp looks for. The images are only the first
bytes of one: readers must not decode.
"""
import io
import os
import sys
import tarfile

import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "formats")
JPEG = b"\xff\xd8\xff\xe0"
PNG = b"\x89PNG\r\n\x1a\n"


def image(number, magic=JPEG, size=700):
    return magic + (b"image %d " % number).ljust(size, b".")


def tar(name, format, members):
    with tarfile.open(os.path.join(OUT, name), "w", format=format) as archive:
        for path, data in members:
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def tars():
    long = "a-folder-with-a-long-name/" * 6
    members = [
        ("__info__", b"no sample"),
        ("0000.cls", b"7"), ("0000.jpg", image(0)), ("0000.json", b"{}" * 500),
        ("0001.JPEG", image(1, size=512)), ("0001.cls", b"8"),
        (long + "0002.jpg", image(2)), (long + "0002.txt", b"a caption"),
        ("sub/0003.seg.png", image(3, PNG)), ("sub/0003.cls", b"9"),
        ("0004.cls", b"no image"),
    ]
    tar("gnu.tar", tarfile.GNU_FORMAT, members)
    tar("pax.tar", tarfile.PAX_FORMAT, members)
    # A prefix holds 155 characters.
    tar("ustar.tar", tarfile.USTAR_FORMAT, [(p.replace(long, long[:-26]), d) for p, d in members])
    tar("text.tar", tarfile.USTAR_FORMAT,
        [("a.json", b"record 0"), ("a.txt", b"x"), ("b.txt", b"y"), ("b.json", b"record 1")])


def arrays():
    rng = np.random.default_rng(1)
    np.save(os.path.join(OUT, "tokens16.npy"), np.arange(100, dtype=np.uint16))
    np.save(os.path.join(OUT, "tokens64.npy"), np.arange(20, dtype=np.int64))
    np.save(os.path.join(OUT, "rows.npy"), np.arange(30, dtype=np.uint32).reshape(5, 6))
    pictures = np.zeros((3, 4, 2, 3), dtype=np.uint8)
    pictures[1] = 1
    pictures[2] = 2
    np.save(os.path.join(OUT, "pictures.npy"), pictures)
    np.save(os.path.join(OUT, "fortran.npy"), np.asfortranarray(np.ones((4, 5), dtype=np.float32)))
    np.save(os.path.join(OUT, "line.npy"), np.arange(12, dtype=np.float64))
    np.save(os.path.join(OUT, "big_endian.npy"), np.arange(12, dtype=">u2"))
    np.save(os.path.join(OUT, "objects.npy"), np.array([{}, 1], dtype=object), allow_pickle=True)
    np.save(os.path.join(OUT, "structured.npy"), np.zeros(3, dtype=[("a", "<i4"), ("b", "<f4")]))
    with open(os.path.join(OUT, "version2.npy"), "wb") as file:
        np.lib.format.write_array(file, np.arange(10, dtype=np.uint16), version=(2, 0))
    x = rng.integers(255, size=(20, 20, 1), dtype=np.uint8)
    np.savez(os.path.join(OUT, "dlio.npz"), x=x, y=[0])
    np.savez(os.path.join(OUT, "two.npz"), a=np.full(50, 1, np.uint8), b=np.full(70, 2, np.uint8))
    np.savez_compressed(os.path.join(OUT, "deflated.npz"), a=np.zeros(5000, np.uint8), b=x)


def llm_c():
    header = np.zeros(256, dtype=np.int32)
    for name, magic, version, dtype in (("gpt2", 20240520, 1, np.uint16),
                                        ("llama3", 20240801, 7, np.uint32)):
        header[:3] = magic, version, 50
        with open(os.path.join(OUT, f"llm_c_{name}.bin"), "wb") as file:
            file.write(header.tobytes())
            file.write(np.arange(50, dtype=dtype).tobytes())


def tfrecords():
    import tfrecord
    writer = tfrecord.TFRecordWriter(os.path.join(OUT, "images.tfrecord"))
    for i in range(4):
        writer.write({
            "image/class/label": (i, "int"),
            "image/encoded": (image(i), "byte"),
            "image/filename": (b"name %d" % i, "byte"),
            "image/weights": ([0.5, 0.25], "float"),
        })
    writer.close()
    writer = tfrecord.TFRecordWriter(os.path.join(OUT, "plain.tfrecord"))
    for i in range(3):
        writer.write({"x": (b"plain %d" % i, "byte"), "size": (20 + i, "int")})
    writer.close()


def parquet():
    import pyarrow
    import pyarrow.parquet
    table = pyarrow.table({
        "id": pyarrow.array(range(30), pyarrow.int32()),
        "data": [b"row %02d" % i * 9 for i in range(30)],
        "text": ["a" if i % 2 else None for i in range(30)],
    })
    pyarrow.parquet.write_table(table, os.path.join(OUT, "groups.parquet"), row_group_size=10,
                                compression="none")


def main():
    os.makedirs(OUT, exist_ok=True)
    tars()
    arrays()
    llm_c()
    tfrecords()
    parquet()
    return 0


if __name__ == "__main__":
    sys.exit(main())
