"""Rectified flow as pure tensor maths: schedules, conversions, steps, guidance, sigma sampling."""
