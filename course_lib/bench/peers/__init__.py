"""What a learner would pick instead, one file a peer; they run in an environment of their own, never in the course's."""
