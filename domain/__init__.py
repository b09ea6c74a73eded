"""What Berth decides, pure: values, aggregates, scheduling and the fleet. No I/O, no clock, no random."""
