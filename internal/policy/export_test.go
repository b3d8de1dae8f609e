package policy

// After is the question as it would be put once the remedy was applied.
func (in Input) After(r Remedy) Input { return in.after(r) }
