// Package seeds keeps the fuzz targets' committed seeds good: they alone must
// reach nine tenths of the statements of each parser of bytes from outside.
package seeds

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/openrms/rms/"
	// least is the part of a parser's statements that its seeds reach.
	least = 0.9
)

// parsers are the parsers of bytes from outside: the package, and the
// functions that take its bytes apart, methods as Type.name. Of a parser's
// statements those that only pass on an error of the device or say that
// something cannot happen are not reached; they are few enough to be within
// the tenth.
var parsers = []struct {
	name, dir, functions string
}{
	{"canonical CBOR", "internal/canon", "Unmarshal Check item head checkText withoutIgnorable appendKnown"},
	{
		"signed objects", "internal/license",
		"ParseEnvelope checkSize likelyKind Envelope.parseSign1 Envelope.parseSign Envelope.readType Envelope.readSigner open Envelope.decode sortedUnique",
	},
	{"publishing license", "internal/license", "ParsePL publishingHeader.check"},
	{"use license", "internal/license", "ParseUL useHeader.check"},
	{"certificate", "internal/license", "ParseCertificate certificateHeader.check"},
	{"trust bundle", "internal/license", "ParseBundle bundleHeader.check"},
	{"generation", "internal/license", "ParseGeneration generationHeader.check"},
	{"end of an archive", "internal/license", "ParseArchive archiveHeader.check"},
	{
		"archive of a tenant", "internal/archive",
		"NewReader readHead Manifest.check Reader.frame Reader.Next Reader.take Reader.finish source.full",
	},
	{"key of an import", "internal/archive", "ReadKey ReadRecipient readWord"},
	{"signed template", "internal/license", "ParseTemplate templateFields.template fromPairs"},
	{"manifest of evidence", "internal/license", "ParseEvidence evidenceHeader.check"},
	{"evidence", "internal/evidence", "Read sameFiles parseItems unframe unarchive"},
	{"wrapped key", "internal/license", "ParseWrap Wrap.check"},
	{"recipient key", "internal/license", "ParseRecipient checkX25519"},
	{"policy in a license", "internal/license", "DecodePolicy policyFields.policy principal fromOffline fromGrants networks"},
	{
		"container", "internal/container",
		"ReadHeader Header.License Header.Meta decodeMeta parsePrefix notAContainer Prefix.valid allZero CleanName cleanRune trim deviceName cut cleanType " +
			"Header.Reader reader.Read reader.segment measure newOpener opener.open " +
			"Header.ReaderAt Content.ReadAt Content.copySegment Content.load readFull",
	},
	{"audit event", "internal/audit", "ParseEvent setID leafWho.principal leafWho.valid"},
	{"inputs of a decision", "internal/decision", "Decode unreadable form.caller license readRevocations form.publishing"},
	{"exported events", "internal/audit", "readExportLine"},
	{"checkpoint", "internal/audit", "OpenCheckpoint ReadCheckpoint parseCheckpoint"},
	{
		"token", "internal/identity",
		"parseToken parseObject Verifier.checkTimes Verifier.accept mayName checkKind checkAudience checkBinding addresses groups overage secondFactor " +
			"claims.text claims.list claims.date claims.isTrue claims.matches claims.has claims.application",
	},
	{"keys of an identity provider", "internal/identity", "parseKeys algorithmOf"},
	{"configuration", "internal/config", "decode aliasLine formerKeys pairs Tenant.check Tenant.checkCustodians checkHolders Custodian.check Custodian.places checkVaultAddress"},
	{"files for people", "internal/policy/strictyaml", "Kind.Documents Kind.Field Fail Mapping Plain Scalar Text List Word Message Clip"},
	{"template file", "internal/policy/templatefile", "Parse parseTemplate principal texts parseGrant parseRights ParseTime ParsePeriod ParseOffline ParseExpiry"},
	{"group file", "internal/policy/groupfile", "Parse parseGroup parseMember CheckApart"},
	{"SSH signature", "internal/sshsig", "Parse ParseKey ParseAuthorizedKey"},
	{"approver set", "internal/operation", "DecodeApprovers ApproverSet.Validate"},
	{"approver file", "internal/operation/approverfile", "Parse parse parseApprover"},
	{"suite of a policy", "internal/policy/suitefile", "Parse Suite.read readTenant readDomains yesNo Suite.readTemplate Suite.readCase readWho readWant"},
	{"context", "internal/contexts", "Parse ParseKeyID Context.Validate validServer hasAlias"},
	{
		"backup", "internal/backup",
		"Read readArchive reader.read reader.next reader.named reader.checkpoints reader.store decodeManifest strictly Manifest.validate " +
			"onlyZeros Inspect Hash.UnmarshalText",
	},
	{"page token", "internal/server", "pages.cursor"},
	{"Vault's answers", "internal/keys/vault", "decodeOne parseAnswer parseVersioned parseBatch parseHealth parseKey parseKeyVersion parseCapabilities parseSignature refusal"},
	{
		"a custody team's key", "internal/keys/byok",
		"Parse sized plain weak printable fromHex fromBase64 object word parseJSON parseJWK base64URL parseAzure isDER foreign foreignPEM foreignXML foreignDER " +
			"wrongBytes wrongSize wrongBlob wrongText",
	},
	{"key ring", "internal/keys/embedded", "parse ring.check"},
	{"document, as a tool sees it", ".", "Inspect Inspection.readLicense"},
}

func TestSeedsReachTheParsers(t *testing.T) {
	if testing.Short() {
		t.Skip("builds every package with a parser anew")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	measured := map[string][]block{}
	for _, p := range parsers {
		if _, done := measured[p.dir]; !done {
			measured[p.dir] = runSeeds(t, root, p.dir)
		}
	}
	for _, p := range parsers {
		places := functions(t, filepath.Join(root, p.dir))
		var all, reached int
		var short []string
		for name := range strings.FieldsSeq(p.functions) {
			at, ok := places[name]
			if !ok {
				t.Errorf("%s: there is no function %s in %s", p.name, name, p.dir)
				continue
			}
			n, hit := count(measured[p.dir], at)
			all, reached = all+n, reached+hit
			if float64(hit) < least*float64(n) {
				short = append(short, fmt.Sprintf("%s %d/%d", name, hit, n))
			}
		}
		t.Logf("%-30s %4d of %4d statements", p.name, reached, all)
		if float64(reached) < least*float64(all) || all == 0 {
			t.Errorf("%s: the seeds reach %d of %d statements, want nine tenths; add seeds to its fuzz target for %s",
				p.name, reached, all, strings.Join(short, ", "))
		}
	}
}

// block is a run of statements of one file, as the profile counts them.
type block struct {
	file        string
	first, last int // lines
	statements  int
	hit         bool
}

// runSeeds runs the seeds of every fuzz target in dir and nothing else.
func runSeeds(t *testing.T, root, dir string) (out []block) {
	t.Helper()
	profile := filepath.Join(t.TempDir(), "profile")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-buildvcs=false", "-run", "^Fuzz", "-coverprofile", profile, "./"+dir)
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", dir, err, b)
	}
	b, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Scan() // the mode
	for lines.Scan() {
		file, rest, _ := strings.Cut(lines.Text(), ":")
		var b block
		var column, times int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &b.first, &column, &b.last, &column, &b.statements, &times); err != nil {
			t.Fatalf("profile of %s: %q: %v", dir, lines.Text(), err)
		}
		b.file, b.hit = path.Base(strings.TrimPrefix(file, module)), times > 0
		out = append(out, b)
	}
	return out
}

// place is where a function stands.
type place struct {
	file        string
	first, last int
}

// functions finds every function of the package in dir.
func functions(t *testing.T, dir string) map[string]place {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	out := map[string]place{}
	for _, name := range files {
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				out[receiver(fn)+fn.Name.Name] = place{filepath.Base(name), set.Position(fn.Pos()).Line, set.Position(fn.End()).Line}
			}
		}
	}
	return out
}

// receiver is the name of a method's type with a dot, or nothing.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name + "."
	}
	return "?." // a generic type; no parser is a method of one
}

func count(blocks []block, at place) (all, hit int) {
	for _, b := range blocks {
		if b.file == at.file && b.first >= at.first && b.last <= at.last {
			all += b.statements
			if b.hit {
				hit += b.statements
			}
		}
	}
	return all, hit
}
