"""CVAT XML 1.1: a hand-computed case, files as CVAT 2 exports them (images, video, project), and back."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import AnnotationError
from medseg.io.annotations import Annotated, read_annotations, write_annotations
from medseg.volume import Volume

META = """  <meta>
    <task>
      <id>4</id>
      <name>CT slices</name>
      <size>{size}</size>
      <mode>{mode}</mode>
      <overlap>0</overlap>
      <bugtracker></bugtracker>
      <created>2024-09-25 11:34:24.617558+00:00</created>
      <updated>2024-09-25 11:38:27.301183+00:00</updated>
      <subset>default</subset>
      <start_frame>{start}</start_frame>
      <stop_frame>{stop}</stop_frame>
      <frame_filter>{frame_filter}</frame_filter>
      <segments>
        <segment>
          <id>4</id>
          <start>0</start>
          <stop>{stop}</stop>
          <url>http://localhost:8080/api/jobs/4</url>
        </segment>
      </segments>
      <owner>
        <username>admin</username>
        <email></email>
      </owner>
      <assignee></assignee>
      <labels>
        <label>
          <name>vessel</name>
          <color>#fa3253</color>
          <type>any</type>
          <attributes>
            <attribute>
              <name>side</name>
              <mutable>False</mutable>
              <input_type>select</input_type>
              <default_value>left</default_value>
              <values>left
right</values>
            </attribute>
          </attributes>
        </label>
        <label>
          <name>lesion</name>
          <color>#3d3df5</color>
          <type>any</type>
          <attributes></attributes>
        </label>
        <label>
          <name>wall</name>
          <color>#33ddff</color>
          <type>mask</type>
          <attributes></attributes>
        </label>
      </labels>{original}
    </task>
    <dumped>2024-09-25 11:38:28.799808+00:00</dumped>{source}
  </meta>
"""

IMAGES = """  <image id="0" name="series/0001.png" width="10" height="8">
    <box label="lesion" source="manual" occluded="0" xtl="4.00" ytl="3.00" xbr="8.00" ybr="7.00" z_order="2">
    </box>
    <polygon label="vessel" source="manual" occluded="0" points="{vessel}" z_order="0" group_id="1">
      <attribute name="side">left</attribute>
    </polygon>
    <mask label="wall" source="semi-auto" occluded="0" {ring} z_order="1">
    </mask>
    <polyline label="vessel" source="manual" occluded="0" points="0.00,0.00;5.00,5.00" z_order="0">
    </polyline>
    <points label="vessel" source="manual" occluded="0" points="3.00,3.00" z_order="0">
    </points>
    <tag label="lesion" source="manual">
    </tag>
  </image>
  <image id="1" name="series/0002.png" width="10" height="8">
  </image>
""".format(
    vessel="1.00,1.00;6.00,1.00;6.00,5.00;1.00,5.00",
    ring='rle="0, 4, 1, 4" left="0" top="0" width="3" height="3"',
)


def exported(body, size=2, mode="annotation", start=0, stop=1, frame_filter="", width=0, height=0):
    original = f"""
      <original_size>
        <width>{width}</width>
        <height>{height}</height>
      </original_size>"""
    fields = {"size": size, "mode": mode, "start": start, "stop": stop, "frame_filter": frame_filter}
    meta = META.format(
        **fields, original=original if width else "", source="\n    <source>ct.mp4</source>" if width else ""
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n{meta}{body}</annotations>\n'
    )


def saved(tmp_path, text):
    path = tmp_path / "annotations.xml"
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(plane):
    return ["".join(map(str, row)) for row in plane.T.tolist()]


def test_holes_and_overlap_by_hand(tmp_path):
    """The z_order decides: vessel below, the ring of the wall over it, the lesion, first in the file, on top."""
    first, second = read_annotations(saved(tmp_path, exported(IMAGES)))
    assert rows_of(first.label_map.array) == [
        "3330000000",
        "3131110000",
        "3331110000",
        "0111222200",
        "0111222200",
        "0000222200",
        "0000222200",
        "0000000000",
    ]
    # In the order in which the task declares them.
    assert first.classes == {"vessel": 1, "lesion": 2, "wall": 3}
    assert (first.image_name, second.image_name) == ("series/0001.png", "series/0002.png")
    assert not second.label_map.array.any()
    assert [f.message for f in first.findings] == [
        "1 x polyline, which has no area and is skipped",
        "1 x points, which has no area and is skipped",
        "1 x tag, which has no area and is skipped",
    ]
    assert not second.findings


def test_equal_z_order_is_painted_in_file_order(tmp_path):
    (annotated, _) = read_annotations(saved(tmp_path, exported(IMAGES.replace('z_order="2"', 'z_order="0"'))))
    assert rows_of(annotated.label_map.array)[3:6] == ["0111112200", "0111112200", "0000222200"]


def test_a_box_turned_by_90_degrees_turns_about_its_middle(tmp_path):
    turned = image('<box label="lesion" xtl="1" ytl="3" xbr="7" ybr="5" rotation="90.00"/>', 'width="8" height="8"')
    (annotated,) = read_annotations(saved(tmp_path, turned))
    assert rows_of(annotated.label_map.array) == ["00000000", *["00022000"] * 6, "00000000"]


def test_a_box_turned_by_45_degrees_leans_clockwise(tmp_path):
    turned = image('<box label="vessel" xtl="2" ytl="8" xbr="18" ybr="12" rotation="45"/>', 'width="20" height="20"')
    (annotated,) = read_annotations(saved(tmp_path, turned))
    assert annotated.label_map.array[14, 14] == 1
    assert annotated.label_map.array[14, 5] == 0


def test_an_ellipse(tmp_path):
    drawn = (
        '<ellipse label="vessel" source="manual" occluded="0" cx="10.40" cy="8.20" rx="6.10" ry="3.00" z_order="0"/>'
    )
    array = read_annotations(saved(tmp_path, image(drawn, 'width="20" height="16"')))[0].label_map.array
    assert array[4:17, 8].all() and not array[3, 8] and not array[17, 8]
    assert array[10, 5:12].all() and not array[10, 4] and not array[10, 12]


def shape(tag, frame, geometry, outside=0, keyframe=1, z=0):
    state = f'frame="{frame}" keyframe="{keyframe}" outside="{outside}" occluded="0"'
    return f'    <{tag} {state} {geometry} z_order="{z}">\n    </{tag}>\n'


def box(frame, x, **more):
    return shape("box", frame, f'xtl="{x}.00" ytl="1.00" xbr="{x + 2}.00" ybr="3.00"', **more)


# A box that moves to the right: CVAT writes the frames between its key frames too, then where it is gone.
MOVING = f"""  <track id="0" label="vessel" source="manual">
{box(0, 0)}{box(1, 1, keyframe=0)}{box(2, 2)}{box(3, 2, outside=1)}  </track>
"""
# A mask seen in one frame, above the box.
BRUSH = 'rle="0, 2" left="2" top="1" width="1" height="2"'
SEEN_ONCE = f"""  <track id="1" label="wall" source="manual">
{shape("mask", 1, BRUSH, z=1)}{shape("mask", 2, BRUSH, outside=1, z=1)}  </track>
"""


def video(tracks, **more):
    return exported(tracks, **{"size": 4, "mode": "interpolation", "stop": 3, "width": 5, "height": 3, **more})


def test_the_tracks_of_a_video_become_a_stack(tmp_path):
    (annotated,) = read_annotations(saved(tmp_path, video(SEEN_ONCE + MOVING)))
    assert annotated.label_map.shape == (5, 3, 4)
    frames = [rows_of(annotated.label_map.array[:, :, n]) for n in range(4)]
    assert frames == [
        ["00000", "11000", "11000"],
        ["00000", "01300", "01300"],
        ["00000", "00110", "00110"],
        ["00000", "00000", "00000"],
    ]
    assert annotated.classes == {"vessel": 1, "lesion": 2, "wall": 3}
    assert annotated.image_name == "ct.mp4"
    assert not annotated.findings


def test_frames_of_a_video_cut_by_a_step_count_from_its_start(tmp_path):
    track = f'<track id="0" label="lesion">{box(10, 0)}{box(15, 1, keyframe=0)}{box(20, 2, outside=1)}</track>'
    text = video(track, size=3, start=10, stop=20, frame_filter="step=5")
    (annotated,) = read_annotations(saved(tmp_path, text))
    assert annotated.label_map.shape == (5, 3, 3)
    assert [int(annotated.label_map.array[:, :, n].sum()) for n in range(3)] == [8, 8, 0]
    assert not annotated.findings


def test_a_track_thinned_out_to_its_key_frames_is_told(tmp_path):
    (annotated,) = read_annotations(saved(tmp_path, video(MOVING.replace(box(1, 1, keyframe=0), ""))))
    assert not annotated.label_map.array[:, :, 1].any()
    (finding,) = annotated.findings
    assert finding.kind == "track_gap"
    assert "track 0 ('vessel') with frames it does not list" in finding.message


def test_a_project_of_two_videos_gives_two_stacks(tmp_path):
    def task(number, size):
        return (
            f"<task><id>{number}</id><name>v{number}</name><size>{size}</size><mode>interpolation</mode>"
            f"<start_frame>0</start_frame><stop_frame>{size - 1}</stop_frame><frame_filter></frame_filter>"
            "<original_size><width>5</width><height>3</height></original_size></task>"
        )

    labels = "<labels><label><name>a</name></label></labels>"
    meta = f"<meta><project><id>1</id><name>p</name><tasks>{task(7, 1)}{task(9, 2)}</tasks>{labels}</project></meta>"
    tracks = f'<track id="0" label="a" task_id="9" subset="Train">{box(1, 0)}</track>'
    text = f"<annotations><version>1.1</version>{meta}{tracks}</annotations>"
    first, second = read_annotations(saved(tmp_path, text))
    assert (first.label_map.shape, second.label_map.shape) == ((5, 3, 1), (5, 3, 2))
    assert not first.label_map.array.any()
    assert rows_of(second.label_map.array[:, :, 1]) == ["00000", "11000", "11000"]


def image(shape, size='width="6" height="5"'):
    return exported(f'<image id="0" name="a.png" {size}>{shape}</image>')


def test_the_points_of_a_skeleton_are_no_classes(tmp_path):
    point = "<label><name>1</name><type>points</type><attributes></attributes><parent>vessel</parent></label>"
    text = exported(IMAGES).replace("</label>\n        <label>", f"</label>\n        {point}\n        <label>", 1)
    assert point in text
    assert read_annotations(saved(tmp_path, text))[0].classes == {"vessel": 1, "lesion": 2, "wall": 3}


LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotations><meta>&c;</meta></annotations>"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (image("", 'width="1000000000" height="5"'), "image size of 1000000000 x 5"),
        (image("", 'width="6"'), "lacks the attribute 'height'"),
        (image("", 'width="6" height="five"'), "height is 'five'; expected an integer"),
        (image('<polygon points="1,1;2,2;3,1"/>'), "lacks the attribute 'label'"),
        (image('<polygon label="vessel" points="1,1;2,2"/>'), "has 2 points; expected at least 3"),
        (image('<polygon label="vessel" points="1,1;2,2;nan,3"/>'), "expected x,y;x,y"),
        (image('<polygon label="vessel" points="1,1;2,2;3"/>'), "expected x,y;x,y"),
        (image('<polygon label="vessel" points="1,1;2,2;1e9,3"/>'), "far outside the image"),
        (image('<box label="vessel" xtl="1" ytl="1" xbr="x" ybr="2"/>'), "xbr is 'x'; expected a number"),
        (
            image('<mask label="wall" rle="0, 5" left="0" top="0" width="2" height="2"/>'),
            "exceed its 4 pixels",
        ),
        (image('<mask label="wall" rle="1, 2" left="0" top="0" width="2" height="2"/>'), "run lengths for 3 pixels"),
        (image('<mask label="wall" rle="4" left="0" top="0" width="999999" height="999999"/>'), "at most 268435456"),
        (image('<mask label="wall" rle="a" left="0" top="0" width="2" height="2"/>'), "rle is 'a'"),
        (image('<ellipse label="wall" cx="1" cy="1" rx="-3" ry="1"/>'), "negative radius"),
        (image('<blob label="wall"/>'), "not a shape of CVAT 1.1"),
        (image('<box label="wall" z_order="x" xtl="1" ytl="1" xbr="2" ybr="2"/>'), "z_order is 'x'"),
        (video(MOVING, size=2), "on frame 2, which the video"),
        (video(MOVING, size=10**9), "with 1000000000 frames"),
        (video(MOVING, frame_filter="step=0"), "frame_filter is 'step=0'"),
        (exported(MOVING), "lacks meta/task/original_size"),
        (video(MOVING)[:-40], "damaged or cut off"),
        ("<annotation><object/></annotation>", "not an annotation of Labelme, CVAT"),
        (LAUGHS, r"declares a document type \('lolz'\)"),
    ],
)
def test_damaged_files_are_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(saved(tmp_path, text))
    assert "annotations.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_doctype_is_refused_in_every_encoding(tmp_path):
    path = tmp_path / "annotations.xml"
    path.write_bytes(LAUGHS.replace("?>", ' encoding="utf-16"?>', 1).encode("utf-16"))
    with pytest.raises(AnnotationError, match=r"annotations\.xml"):
        read_annotations(path)


def test_label_maps_come_back_as_images(tmp_path):
    first = np.zeros((9, 8), np.uint8)
    first[1:8, 1:7] = 2
    first[3:6, 3:5] = 0
    second = np.random.default_rng(0).integers(0, 3, (6, 5)).astype(np.uint8)
    given = [
        Annotated(Volume(array, np.eye(4), spacing_known=False), {"b": 1, "a": 2}, name)
        for array, name in ((first, "1 & 2.png"), (second, "<3>.png"))
    ]
    write_annotations(given, tmp_path / "out.xml", "cvat")
    for before, after in zip(given, read_annotations(tmp_path / "out.xml"), strict=True):
        np.testing.assert_array_equal(after.label_map.array, before.label_map.array)
        assert (after.classes, after.image_name) == (before.classes, before.image_name)


def test_a_stack_comes_back_as_a_video(tmp_path):
    stack = np.random.default_rng(0).integers(0, 3, (7, 6, 4)).astype(np.uint8)
    volume = Volume(stack, np.eye(4), spacing_known=False)
    write_annotations(Annotated(volume, {"b": 1, "a": 2}, "ct.mp4"), tmp_path / "out.xml", "cvat")
    (again,) = read_annotations(tmp_path / "out.xml")
    np.testing.assert_array_equal(again.label_map.array, stack)
    assert (again.classes, again.image_name, again.findings) == ({"b": 1, "a": 2}, "ct.mp4", ())
