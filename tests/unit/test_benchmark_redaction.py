"""The measurement of redaction on a corpus as rules of betterleaks and gitleaks bring it along."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import redaction
from benchmarks.go_samples import Sample, samples

RULES = """package rules

func Token() *config.Rule {
	r := config.Rule{Regex: `[a-z]{3}`}
	tps := []string{
		"PASSWORD=\\"hunter2\\"", // a comment, with a comma
		`raw "text"
of two lines`,
		utils.Generate("name", "not a sample"),
	}
	tps = append(tps, "one", "two "+"halves")
	fps := map[string]string{"why": "token = $TOKEN", "other": `{"a", "b"}`}
	return utils.Validate(r, tps, fps)
}

func ClientID() *config.Rule {
	r := config.Rule{
		SkipReport: true,
	}
	tps := []string{"client-id"}
	return utils.Validate(r, tps, nil)
}
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A checkout with one rule that counts."""
    rules = tmp_path / "checkout" / redaction.RULES
    rules.mkdir(parents=True)
    (rules / "token.go").write_text(RULES)
    (rules / "token_test.go").write_text('tps := []string{"no"}')
    return tmp_path


def test_samples_are_read_out_of_the_sources_and_those_made_at_random_are_counted(corpus: Path) -> None:
    assert list(samples(corpus / "checkout" / redaction.RULES)) == [
        Sample(True, 'PASSWORD="hunter2"'),
        Sample(True, 'raw "text"\nof two lines'),
        Sample(True, None),
        Sample(True, "one"),
        Sample(True, None),
        Sample(False, "token = $TOKEN"),
        Sample(False, '{"a", "b"}'),
    ]


def test_hits_misses_and_false_alarms_are_told(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "lib"
    (library / "test").mkdir(parents=True)
    (library / "module.py").write_text("import os\nself.token = nextchar\n")
    (library / "test" / "test_it.py").write_text("PASSWORD='hunter2'\n")
    monkeypatch.setattr(redaction.sysconfig, "get_path", lambda name: str(library))
    monkeypatch.setattr(redaction.topics, "topics", {"is": "a token\nof thanks"})
    monkeypatch.setattr(sys, "argv", ["redaction", str(corpus), "--list"])
    assert redaction.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert report["secrets"] == {
        "samples": 3,
        "found": 1,
        "missed": 2,
        "not_read": 2,
        "near_misses": 2,
        "near_misses_blanked": 0,
        "list": ['raw "text"\nof two lines', "one"],
    }
    assert report["library"] == {
        "lines": 2,
        "false_alarms": 1,
        "kinds": {"assignment": 1},
        "list": ["self.token = nextchar"],
    }
    assert report["language reference"]["lines"] == 2


def test_a_folder_without_a_corpus_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["redaction", str(tmp_path)])
    assert redaction.main() == 1
    assert redaction.RULES in capsys.readouterr().err
