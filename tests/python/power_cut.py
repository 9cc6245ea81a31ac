"""Cuts the power of a run's file system at random moments, and sees whether the run ends the same.

    sudo python3 tests/python/power_cut.py --nsmc target/release/nsmc --config CONFIG [--cuts 20]

CONFIG is a resolved configuration, as `config.toml` in a run directory. The run is made once on a
plain folder. Then it is made on an ext4 image: at random moments the file system is shut down with
neither its journal nor its data flushed (FS_IOC_SHUTDOWN with NOLOGFLUSH, what xfstests calls
"godown"), which leaves on the disk what a power cut leaves; the image is checked, mounted again, and
the same command goes on. Predictions must be the same bytes, and `nsmc verify` must find nothing.
Needs: Linux, root, loop devices, e2fsprogs; run from the repository's root.
"""
import argparse, collections, fcntl, os, pathlib, random, struct, subprocess, tempfile, time

FS_IOC_SHUTDOWN = 0x8004587D
NOLOGFLUSH = 2


def run(*command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}"


def train(a, out):
    command = [a.nsmc, "train", "--config", a.config, "--out", out, "--device", "cpu"]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--nsmc", type=pathlib.Path, required=True)
    p.add_argument("--config", type=pathlib.Path, required=True)
    p.add_argument("--cuts", type=int, default=20)
    p.add_argument("--megabytes", type=int, default=1024)
    p.add_argument("--between", type=float, nargs=2, default=[0, 1.1], help="cut between these shares of a run's length")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    a.nsmc = a.nsmc.resolve()
    moments = random.Random(a.seed)
    found = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        whole, image, place = folder / "whole", folder / "image", folder / "mounted"
        started = time.monotonic()
        process = train(a, whole)
        said = process.communicate()[1]
        assert process.returncode == 0, said
        length = time.monotonic() - started
        expected = (whole / "predictions.tsv").read_bytes()
        print(f"a whole run takes {length:.1f} s", flush=True)

        place.mkdir()
        with image.open("wb") as file:
            file.truncate(a.megabytes << 20)
        run("mkfs.ext4", "-q", image)
        run("mount", "-o", "loop", image, place)
        out = place / "run"
        try:
            while found["cuts"] < a.cuts:
                process = train(a, out)
                time.sleep(length * moments.uniform(*a.between))
                if process.poll() is not None:
                    said = process.communicate()[1]
                    assert process.returncode == 0, said
                    assert (out / "predictions.tsv").read_bytes() == expected, "other predictions"
                    run(a.nsmc, "verify", out)
                    found["runs that ended equal"] += 1
                    run("rm", "-r", out)
                    continue
                mounted = os.open(place, os.O_RDONLY)
                fcntl.ioctl(mounted, FS_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
                os.close(mounted)
                process.kill()
                process.communicate()
                found["cuts"] += 1
                run("umount", place)
                run("mount", "-o", "loop", image, place)
                steps = sorted(path.name for path in out.glob("**/resume/step-*"))
                found["went on from a checkpoint" if steps else "nothing was kept yet, or all was done"] += 1
                print(f"cut {found['cuts']}: {', '.join(steps) or '-'}", flush=True)
            # Whatever the last cut left goes on to its end.
            process = train(a, out)
            said = process.communicate()[1]
            done = process.returncode != 0 and "it is done" in said
            assert process.returncode == 0 or done, said
            assert (out / "predictions.tsv").read_bytes() == expected, "other predictions"
            run(a.nsmc, "verify", out)
            found["runs that ended equal"] += 1
        finally:
            subprocess.run(["umount", str(place)])
    print(dict(found))


main()
