"""TotalSegmentator's tasks: its folders of weights, where they lie, as one model made of parts."""
