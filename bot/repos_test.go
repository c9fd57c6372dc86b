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

// TestLinkedRepos: a link to a repository, a branch or a pull request gives a session that repository, if it may be named. Another link is no more
// than words.
func TestLinkedRepos(t *testing.T) {
	t.Parallel()
	b := &Bot{cfg: Config{NamedRepos: []string{"https://github.com/acme/", "https://git.acme.example/", "file:///srv/git/"}}}
	api := runner.Repo{URL: "https://github.com/acme/api"}
	at := func(branch string) runner.Repo { return runner.Repo{URL: api.URL, Branch: branch} }
	for words, want := range map[string][]runner.Repo{
		"why does <https://github.com/acme/api> fail?":                                    {api},
		"why does <https://github.com/acme/api|acme/api> fail?":                           {api},
		"why does https://github.com/acme/api/ fail (https://github.com/acme/api)?":       {api},
		"<https://GitHub.com/Acme/api.git>":                                               {{URL: "https://GitHub.com/Acme/api.git"}},
		"<https://github.com/acme/api/tree/v2>":                                           {at("v2")},
		"<https://github.com/acme/api/tree/main/docs>":                                    {api},
		"<https://github.com/acme/api/tree/0a1b2c3d4e>":                                   {api},
		"<https://github.com/acme/api/pull/12>":                                           {api},
		"<https://github.com/acme/api/pull/12/files?w=1&amp;x=2#diff-1>":                  {api},
		"<https://github.com/acme/api/pull/12> and <https://github.com/acme/web/tree/v2>": {api, {URL: "https://github.com/acme/web", Branch: "v2"}},
		"<https://git.acme.example/team/sub/app/-/merge_requests/3>":                      {{URL: "https://git.acme.example/team/sub/app"}},
		"<https://git.acme.example/team/app/pulls/3>":                                     {{URL: "https://git.acme.example/team/app"}},
		"<https://git.acme.example/team/app/-/tree/main>":                                 {{URL: "https://git.acme.example/team/app", Branch: "main"}},
		// What is none, may be a group, or may not be named.
		"<https://git.acme.example/team/app>":                                       nil,
		"<https://github.com/acme/api/issues/5>":                                    nil,
		"<https://github.com/acme/api/blob/main/go.mod#L3>":                         nil,
		"<https://github.com/acme/api/pulls>":                                       nil,
		"<https://github.com/acme>":                                                 nil,
		"<https://github.com/evil/api/pull/1>":                                      nil,
		"<http://github.com/acme/api|github.com/acme/api>":                          nil,
		"<https://github.com.evil.example/acme/api>":                                nil,
		"<https://github.com/acme/../evil/x/pull/1>":                                nil,
		"<https://github.com/acme/%2e%2e/evil/pull/1>":                              nil,
		"<https://example.com/?u=https://github.com/acme/api>":                      nil,
		"<https://github.com/acme/a/pull/1> <https://git.acme.example/b/a/pulls/1>": nil, // of one name: which folder is whose?
		"acme/api": nil,
	} {
		if got := b.linkedRepos(words); !slices.Equal(got, want) {
			t.Errorf("%q = %v, want %v", words, got, want)
		}
	}
	if got := (&Bot{}).linkedRepos("<https://github.com/acme/api/pull/1>"); got != nil {
		t.Errorf("linked = %v though no place is set", got)
	}
}

// TestLinkedInPrompt: the links of the message that begins a session count, where it names no repository in words, and stay in them.
func TestLinkedInPrompt(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t, func(c *Config) { c.NamedRepos = []string{"https://github.com/acme/"} })
	const link = "<https://github.com/acme/api/pull/12>"
	api := []runner.Repo{{URL: "https://github.com/acme/api"}}
	for _, c := range []struct {
		words       string
		first       bool
		repos, adds []runner.Repo
	}{
		{"review " + link, true, nil, api},
		{"review " + link, false, nil, nil},
		{"repo:acme/web like " + link, true, []runner.Repo{{URL: "https://github.com/acme/web"}}, nil},
		{"repo:none what is " + link, true, []runner.Repo{}, nil},
	} {
		root := w.say(member, general, "", mention+c.words)
		p, err := w.bot.Prompt(t.Context(), session(root), asks(root, root, c.words), c.first)
		if err != nil || !slices.Equal(p.Repos, c.repos) || !slices.Equal(p.Adds, c.adds) || !has(p.Text, "https://github.com/acme/api/pull/12") {
			t.Errorf("%q: repositories %v and %v, prompt %q, %v; want %v and %v", c.words, p.Repos, p.Adds, p.Text, err, c.repos, c.adds)
		}
	}
}
