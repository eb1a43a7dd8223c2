"""Measures of a reconstruction that no loss optimises: faces, identity, PSNR, perceptual distances."""
