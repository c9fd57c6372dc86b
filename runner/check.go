package runner

// CheckRepos refuses repositories that no turn could be run with, as a take does: what is no address, a folder's name that is none,
// two in one folder.
func CheckRepos(repos []Repo) error { return checkRepos(repos) }
