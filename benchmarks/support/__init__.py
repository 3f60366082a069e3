"""What several programs, or a long one, need: texts, variants of models, facts about the machine."""
