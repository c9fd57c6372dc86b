package bot

import (
	"errors"
	"slices"
	"testing"

	"flaudebot/runner"
)

// TestRepositories: what a message names, and what its words are without it.
func TestRepositories(t *testing.T) {
	t.Parallel()
	b := &Bot{cfg: Config{NamedRepos: []string{"https://github.com/acme/", "https://git.acme.example/", "file:///srv/git/"}}}
	gh := func(name, branch string) runner.Repo {
		return runner.Repo{URL: "https://github.com/acme/" + name, Branch: branch}
	}
	for _, c := range []struct {
		words, rest string
		repos       []runner.Repo
	}{
		{"fix the test", "fix the test", nil},
		{"say repository: and rebranch:x", "say repository: and rebranch:x", nil},
		{"repo:acme/api fix the test", "fix the test", []runner.Repo{gh("api", "")}},
		{"fix it in repo:acme/api, please", "fix it in please", []runner.Repo{gh("api", "")}},
		{"repo:acme/api#v2 fix", "fix", []runner.Repo{gh("api", "v2")}},
		{"Repo:acme/api Branch:feature/x fix", "fix", []runner.Repo{gh("api", "feature/x")}},
		{"repo:acme/api branch:v2 repo:acme/web compare them", "compare them", []runner.Repo{gh("api", "v2"), gh("web", "")}},
		{"fix\nrepo:<https://github.com/acme/api>\nsoon", "fix\nsoon", []runner.Repo{gh("api", "")}},
		{"repo:<https://github.com/acme/api/tree/fix/it|github.com/acme/api/…> go on there", "go on there", []runner.Repo{gh("api", "fix/it")}},
		{"repo:https://git.acme.example/team/sub/app/-/tree/main why?", "why?", []runner.Repo{{URL: "https://git.acme.example/team/sub/app", Branch: "main"}}},
		{"repo:https://git.acme.example/team/app/src/branch/main why?", "why?", []runner.Repo{{URL: "https://git.acme.example/team/app", Branch: "main"}}},
		{"repo:https://GitHub.com/Acme/API.git x", "x", []runner.Repo{{URL: "https://GitHub.com/Acme/API.git"}}},
		{"repo:file:///srv/git/app x", "x", []runner.Repo{{URL: "file:///srv/git/app"}}},
		{"repo:none what is a monad?", "what is a monad?", []runner.Repo{}},
	} {
		rest, repos, err := b.repositories(c.words)
		if err != nil || rest != c.rest || !slices.Equal(repos, c.repos) || (repos == nil) != (c.repos == nil) {
			t.Errorf("%q = %q, %#v, %v; want %q, %#v", c.words, rest, repos, err, c.rest, c.repos)
		}
	}
	for _, words := range []string{
		"branch:v2 fix", "repo:evil/api fix", "repo:https://github.com.evil.example/acme/api x", "repo:https://github.com/acme/../evil/x x", "repo:https://github.com/acme x",
		"repo:https://github.com/acmeevil/x x", "repo:https://me:secret@github.com/acme/x x", "repo:http://github.com/acme/x x", "repo:git@github.com:acme/x x",
		"repo:https://github.com/acme/%2e%2e/evil/x x", "repo:/etc x", "repo:--upload-pack=x x", "repo:acme/api repo:https://git.acme.example/x/api x", "repo:acme/api branch:--x y",
		"repo:https://github.com/acme/x?y=1 x",
	} {
		var problem nameError
		if rest, repos, err := b.repositories(words); !errors.As(err, &problem) {
			t.Errorf("%q = %q, %v, %v, want a problem that people are told", words, rest, repos, err)
		}
	}
	if _, _, err := (&Bot{}).repositories("repo:acme/api x"); err == nil {
		t.Error("any repository may be named though no place is set")
	}
}

func TestNamedPlace(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"github.com/acme": "https://github.com/acme/", "github.com": "https://github.com/", "https://git.acme.example/team/": "https://git.acme.example/team/",
		"file:///srv/git": "file:///srv/git/", "https://me@github.com/acme": "", "https://": "", "github.com/acme?x": "", "file://host/x": "", " ": "",
	} {
		if got, err := NamedPlace(s); got != want || (err == nil) != (want != "") {
			t.Errorf("NamedPlace(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
}
