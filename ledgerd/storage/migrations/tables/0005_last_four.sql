-- Who runs the book looks borrowers up by the last four digits that they name.
CREATE INDEX vault_last_four ON vault (last_four, user_id);
