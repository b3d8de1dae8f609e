package policy

// After is the question as it would be put once the remedy was applied.
func (r Remedy) After(in Input) Input { return r.after(in) }
