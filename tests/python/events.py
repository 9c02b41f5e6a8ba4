#!/usr/bin/env python3
"""Is what TensorBoard loads from event files what metrics.jsonl and samples.jsonl say?

events.py METRICS SAMPLES FOLDER... [--csv FILE]: every scalar of every step as a float32, no step
twice, no tag more or less; every sample as a text; the CSV equal to the last digit.
"""
import argparse
import csv
import json
import logging
import sys

import numpy
from tensorboard.backend.event_processing import event_accumulator

EVERYTHING = {"scalars": 0, "tensors": 0}


def numbers(line):
    return {key: float(value) for key, value in line.items() if key != "step" and value is not None}


def read_lines(path):
    lines = {}
    for text in open(path, encoding="utf-8"):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # cut by a death
            continue
        lines[line["step"]] = line
    return lines


def check_scalars(accumulator, lines):
    want, got = {}, {}
    for step, line in lines.items():
        for key, value in numbers(line).items():
            want[key, step] = float(numpy.float32(value))
    times = {}
    for tag in accumulator.Tags()["scalars"]:
        for event in accumulator.Scalars(tag):
            if (tag, event.step) in got:
                sys.exit(f"{tag}: step {event.step} is there twice")
            got[tag, event.step] = event.value
            times[event.step] = event.wall_time
    if got != want:
        differ = [key for key in want.keys() | got.keys() if want.get(key) != got.get(key)]
        sys.exit(f"{len(differ)} of {len(want)} differ: {sorted(differ)[:5]}")
    ordered = [times[step] for step in sorted(times)]
    if ordered != sorted(ordered):
        sys.exit("wall_time goes back")
    return len(got)


def check_texts(accumulator, samples, last):
    want = {step: line["text"] for step, line in samples.items() if step <= last}
    got = {}
    for event in accumulator.Tensors("sample") if want else []:
        if event.step in got:
            sys.exit(f"the sample of step {event.step} is there twice")
        got[event.step] = event.tensor_proto.string_val[0].decode()
    if want and accumulator.SummaryMetadata("sample").plugin_data.plugin_name != "text":
        sys.exit("samples are no texts")
    if got != want:
        sys.exit(f"samples differ: {sorted(want)} are expected, {sorted(got)} there")
    return len(got)


def check_csv(path, lines):
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if [int(row["step"]) for row in rows] != list(lines):
        sys.exit("CSV has other steps")
    for row in rows:
        words = {"true": 1.0, "false": 0.0}
        got = {key: words[text] if text in words else float(text)
               for key, text in row.items() if key != "step" and text != ""}
        if got != numbers(lines[int(row["step"])]):
            sys.exit(f"CSV: step {row['step']} differs")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("metrics")
    parser.add_argument("samples")
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--csv")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    lines, samples = read_lines(given.metrics), read_lines(given.samples)
    for folder in given.folder:
        accumulator = event_accumulator.EventAccumulator(folder, size_guidance=EVERYTHING)
        accumulator.Reload()
        scalars = check_scalars(accumulator, lines)
        texts = check_texts(accumulator, samples, max(lines))
        print(f"{folder}: {scalars} scalars and {texts} samples are equal")
    if given.csv:
        check_csv(given.csv, lines)


main()
