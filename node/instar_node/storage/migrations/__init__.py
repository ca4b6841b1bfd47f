"""Numbered schema steps, ``NNN_name.sql``; a step that has shipped is never edited, only followed."""
