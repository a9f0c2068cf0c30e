"""What every prompt passes before generation, and every answer before delivery."""
