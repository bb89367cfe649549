//! A scripted model server that speaks both wire formats.
