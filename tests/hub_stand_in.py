"""A stand-in of the Hugging Face Hub's HTTP interface, in memory: what huggingface_hub asks for."""

import base64
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

TOKEN = 'hf_stand_in'  # of the one user, who may write everywhere


@dataclasses.dataclass
class Repository:
    """Revisions by commit and by branch; files by revision and name."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    branches: dict[str, str] = dataclasses.field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = 'main') -> str:
        """Adds files to a branch; returns the commit's name."""
        content = {**self.commits.get(self.branches.get(branch, ''), {}), **files}
        text = f'{len(self.commits)} {sorted(content)}'
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name], self.branches[branch] = content, name
        return name

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the main branch."""
        return self.commits[self.branches['main']]


class Hub:
    """The server, from `with` on; `asked` lists its requests, and `refused` has answers to give.

    Attributes:
      url: of the server.
      repositories: by 'user/model'.
      asked: method and path of each request.
      refused: statuses by a part of a request's `METHOD path`.
      uploads: large files by their digest.
      cut: sends half of each large file only.
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.refused: dict[str, int] = {}
        self.uploads: dict[str, bytes] = {}
        self.cut = False

    def __enter__(self) -> 'Hub':
        handler = type('Handler', (_Handler,), {'hub': self})
        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, **files: bytes) -> Repository:
        """A public repository with files; `_` in a keyword stands for a dot."""
        repository = self.repositories[name] = Repository()
        repository.commit({key.replace('_', '.'): content for key, content in files.items()})
        return repository

    def environment(self, folder) -> dict[str, str]:
        """Variables with which a process uses this Hub, and a cache of its own in a folder."""
        return {
            'HF_ENDPOINT': self.url,
            'HF_HOME': str(folder),
            'HF_HUB_DISABLE_XET': '1',
            'HF_TOKEN': TOKEN,
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self):
        length = self.headers.get('Content-Length')
        self.body = self.rfile.read(int(length)) if length else self._read_chunks()
        path = urllib.parse.urlsplit(self.path).path
        asked = f'{self.command} {path}'
        self.hub.asked.append(asked)
        for part, status in self.hub.refused.items():
            if part in asked:
                return self._send(status, {'error': 'refused'})
        for pattern, answer in _ROUTES.items():
            if match := re.fullmatch(pattern, path):
                return answer(self, *map(urllib.parse.unquote, match.groups()))
        return self._send(404, {'error': f'no route for {asked}'})

    def _read_chunks(self) -> bytes:
        content = b''
        if self.headers.get('Transfer-Encoding') == 'chunked':
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return content

    def _send(self, status, content=b'', **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {name.replace('_', '-'): value for name, value in headers.items()}
        self.send_response(status)
        for name, value in {'Content-Length': len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    @property
    def _knows_user(self) -> bool:
        return self.headers.get('Authorization') == f'Bearer {TOKEN}'

    def _find(self, name: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and a commit; or sends why not, as the Hub does."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._knows_user):
            status = 404 if self._knows_user else 401
            self._send(status, {}, X_Error_Code='RepoNotFound')
            return None
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits and repository.commits:
            self._send(404, {}, X_Error_Code='RevisionNotFound')
            return None
        return repository, commit

    def create(self):
        if not self._knows_user:
            return self._send(401, {'error': 'Invalid username or password.'})
        asked = json.loads(self.body)
        name = f'{asked["organization"]}/{asked["name"]}'
        if name in self.hub.repositories:
            return self._send(409, {'error': 'You already created this model repo'})
        private = asked.get('visibility') == 'private' or bool(asked.get('private'))
        self.hub.repositories[name] = Repository(private)
        self.hub.repositories[name].commit({'.gitattributes': b''})
        return self._send(200, {'url': f'{self.hub.url}/{name}', 'name': name})

    def info(self, name, revision='main'):
        if found := self._find(name, revision):
            repository, commit = found
            files = [{'rfilename': each} for each in repository.commits.get(commit, {})]
            card = repository.commits.get(commit, {}).get('README.md', b'').decode()
            library = re.search(r'^library_name: (\S+)$', card, re.MULTILINE)
            answer = {'id': name, 'sha': commit, 'private': repository.private, 'siblings': files}
            self._send(200, {**answer, 'cardData': {'library_name': library[1]} if library else {}})

    def resolve(self, name, revision, file):
        if (found := self._find(name, revision)) is None:
            return None
        repository, commit = found
        if repository.gated and not self._knows_user:
            return self._send(401, {}, X_Error_Code='GatedRepo', X_Repo_Commit=commit)
        content = repository.commits[commit].get(file)
        if content is None:
            return self._send(404, {}, X_Error_Code='EntryNotFound', X_Repo_Commit=commit)
        digest = hashlib.sha256(content).hexdigest()
        if not file.endswith('.md'):  # large files come from elsewhere
            self.hub.uploads[digest] = content
            linked = {'X_Linked_Etag': f'"{digest}"', 'X_Linked_Size': len(content)}
            # Another host: the Hub's client follows redirects to its own by itself.
            url = f'{self.hub.url}/cdn/{digest}'.replace('127.0.0.1', 'localhost')
            return self._send(302, X_Repo_Commit=commit, Location=url, **linked)
        return self._send(200, content, X_Repo_Commit=commit, ETag=f'"{digest[:40]}"')

    def download(self, digest):
        content = self.hub.uploads[digest]
        begin = int(re.sub(r'\D', '', self.headers.get('Range', '')) or 0)  # 'bytes=5-' goes on
        end = len(content) // 2 if self.hub.cut else len(content)
        self._send(206 if begin else 200, content[begin:end], ETag=f'"{digest}"')

    def check_card(self):
        content = json.loads(self.body)['content']
        bad = 'license: nonsense' in content
        errors = [{'message': '"license" must be one of …'}] if bad else []
        self._send(400 if bad else 200, {'errors': errors, 'warnings': []})

    def preupload(self, name, revision):
        if not self._knows_user:
            return self._send(403, {})
        if self._find(name, revision) is None:
            return None
        files = []
        for file in json.loads(self.body)['files']:
            mode = 'regular' if file['path'].endswith('.md') else 'lfs'
            files.append({'path': file['path'], 'uploadMode': mode, 'shouldIgnore': False})
        return self._send(200, {'files': files})

    def batch(self, name):
        objects = []
        for each in json.loads(self.body)['objects']:
            upload = {'href': f'{self.hub.url}/lfs/{each["oid"]}'}
            objects.append({**each, 'actions': {'upload': upload}})
        self._send(200, {'transfer': 'basic', 'objects': objects})

    def upload(self, digest):
        assert hashlib.sha256(self.body).hexdigest() == digest
        self.hub.uploads[digest] = self.body
        self._send(200)

    def commit(self, name, revision):
        if (found := self._find(name, revision)) is None:
            return None
        files, repository = {}, found[0]
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry['value']
            if entry['key'] == 'header':
                if value.get('parentCommit', found[1]) != found[1]:
                    return self._send(412, {'error': 'A commit has happened since.'})
            elif entry['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            else:
                files[value['path']] = self.hub.uploads[value['oid']]
        commit = repository.commit(files, revision)
        url = f'{self.hub.url}/{name}/commit/{commit}'
        return self._send(200, {'success': True, 'commitUrl': url, 'commitOid': commit})

    def branch(self, name, branch):
        repository = self.hub.repositories[name]
        if branch in repository.branches:
            return self._send(409, {'error': 'Reference already exists'})
        repository.branches[branch] = repository.branches['main']
        return self._send(201, {})


_NAME = r'([^/]+/[^/]+)'
_ROUTES = {
    '/api/repos/create': _Handler.create,
    '/api/validate-yaml': _Handler.check_card,
    rf'/api/models/{_NAME}': _Handler.info,
    rf'/api/models/{_NAME}/revision/([^/]+)': _Handler.info,
    rf'/api/models/{_NAME}/preupload/([^/]+)': _Handler.preupload,
    rf'/api/models/{_NAME}/commit/([^/]+)': _Handler.commit,
    rf'/api/models/{_NAME}/branch/([^/]+)': _Handler.branch,
    rf'/{_NAME}/resolve/([^/]+)/(.+)': _Handler.resolve,
    rf'/{_NAME}\.git/info/lfs/objects/batch': _Handler.batch,
    r'/cdn/(\w+)': _Handler.download,
    r'/lfs/(\w+)': _Handler.upload,
}
