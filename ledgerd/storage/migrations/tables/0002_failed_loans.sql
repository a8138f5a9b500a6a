-- Which loans a billing run could not bill: a JSON list of loan ids, the first 100 at most. `failed` counts them all.
ALTER TABLE billing_runs ADD COLUMN failed_loans TEXT NOT NULL DEFAULT '[]';
