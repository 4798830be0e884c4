"""Pages that show a training run or an evaluation: results in, one self-contained HTML file out.

The modules named after what is shown (`retrieval`, `multiple_choice`, `segmentation`, `steps`, `moments`, `headline`,
`training`) are pure functions from arrays to the parts of a page. `evaluation_pages` and `training` read the files,
`page` fills the template. Needs the extra `report` (Altair and vl-convert).
"""
