"""Optimizers seen: every rule walks over five classic landscapes through a live service, and is drawn.

functions   the landscapes, with gradients written by hand
rates       which learning rates are too small, right and too large, rule by rule
run         one model per trial, one tensor per rule: a push moves them all
sight       what one sees of a path, in a word
draw        contours, paths and captions, as PNG
"""
