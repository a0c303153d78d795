"""
Upright, perspective-corrected crops of people.

Each crop is what a virtual camera would see that stands where the real one stands, looks
straight at the person, has no lens distortion and zooms so that the person fills its square
image (MeTRAbs, T-BIOM 2021, section III-F).  Poses found in a crop are true in the virtual
camera's frame; a rotation takes them back.
"""
