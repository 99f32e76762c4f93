//! Pictures and their bounds; the numbers are held against PIL, torchvision's formulas and OpenCV in the suite.
