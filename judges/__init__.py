"""What tells how good a reconstruction is, apart from the losses: faces, identity, PSNR, perceptual distances."""
