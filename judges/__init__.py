"""Quality of a reconstruction, by measures that no loss optimises: faces, identity, PSNR, perceptual distance."""
