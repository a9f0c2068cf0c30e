"""What the table of `tanzim.data.dedup.fold` says of a character: numbers above all code points."""

# Becomes several characters · must not follow a mark · is left out · needs its neighbours looked at.
SEVERAL, MARK, DELETED, SLOW = 1 << 28, 1 << 29, 1 << 30, 1 << 31
# Code points beyond the table that normalising leaves as they are: the pictographs.
IDENTITY = (0x1F300, 0x1FAFF)
# Maddah and hamza above or below join these letters, and no other ones of the Arabic block.
HAMZA, ARABIC, JOINED_BY_HAMZA = (0x653, 0x655), (0x600, 0x6FF), (0x627, 0x648, 0x64A, 0x6C1, 0x6D2, 0x6D5)
