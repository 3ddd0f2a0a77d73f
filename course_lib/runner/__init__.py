"""Running labs headlessly: plan, execute, strict rules, live progress, report."""
