// Made by `make types` from the server's own descriptions. Not to be edited.

/**
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "JsonValue".
 */
export type JsonValue = unknown;

export interface Schemas {
  ServerMessage?:
    Ready | NoteCreated | NoteUpdated | NoteDeleted | PresenceShown | PresenceChanged | Reset | Heartbeat | Error;
}
/**
 * The subscription is active: every later event follows.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Ready".
 */
export interface Ready {
  type: "ready";
  /**
   * opaque position in the feed: pass it as `since=` to resume
   */
  cursor: string;
}
/**
 * A note was created. Contains the whole note.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "NoteCreated".
 */
export interface NoteCreated {
  type: "note.created";
  /**
   * opaque position in the feed: pass it as `since=` to resume
   */
  cursor: string;
  id: number;
  version: number;
  /**
   * without `content` under `content=false`
   */
  note: Note | NoteHead;
}
/**
 * A note with its content.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Note".
 */
export interface Note {
  id: number;
  title: string;
  description: string;
  tags: string[];
  version: number;
  created_date: string;
  updated_date: string;
  content: string;
}
/**
 * A note without its content. ``version`` starts at 1 and increases by 1 with every change.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "NoteHead".
 */
export interface NoteHead {
  id: number;
  title: string;
  description: string;
  tags: string[];
  version: number;
  created_date: string;
  updated_date: string;
}
/**
 * A note was changed or restored. Contains the whole note.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "NoteUpdated".
 */
export interface NoteUpdated {
  type: "note.updated";
  /**
   * opaque position in the feed: pass it as `since=` to resume
   */
  cursor: string;
  id: number;
  version: number;
  /**
   * without `content` under `content=false`
   */
  note: Note | NoteHead;
}
/**
 * A note was deleted, or this client no longer has access to it.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "NoteDeleted".
 */
export interface NoteDeleted {
  type: "note.deleted";
  /**
   * opaque position in the feed: pass it as `since=` to resume
   */
  cursor: string;
  id: number;
  version: number;
}
/**
 * The people who are viewing a note, as states by id. Replaces all earlier presence of the note.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "PresenceShown".
 */
export interface PresenceShown {
  type: "presence";
  id: number;
  people: {
    [k: string]: {
      [k: string]: JsonValue;
    };
  };
}
/**
 * A person started viewing a note, changed their state, or left (``state`` is ``null``).
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "PresenceChanged".
 */
export interface PresenceChanged {
  type: "presence.changed";
  id: number;
  /**
   * the person's id at this note
   */
  person: string;
  state: {
    [k: string]: JsonValue;
  } | null;
}
/**
 * The missed events are no longer available: fetch ``GET /notes/`` again and continue from the cursor.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Reset".
 */
export interface Reset {
  type: "reset";
  /**
   * opaque position in the feed: pass it as `since=` to resume
   */
  cursor: string;
}
/**
 * This client has received every event up to the cursor.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Heartbeat".
 */
export interface Heartbeat {
  type: "heartbeat";
  /**
   * opaque position in the feed: pass it as `since=` to resume
   */
  cursor: string;
}
/**
 * Describes an error in a frame from the client. The server then closes the connection.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Error".
 */
export interface Error {
  type: "error";
  detail: string;
}
/**
 * A note in a list. With ``q``, it has a snippet of the text that was found.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "NoteListed".
 */
export interface NoteListed {
  id: number;
  title: string;
  description: string;
  tags: string[];
  version: number;
  created_date: string;
  updated_date: string;
  /**
   * omitted with `content=false`
   */
  content?: string;
  /**
   * HTML: an escaped excerpt of the text with `<mark>` around each match
   */
  snippet?: string | null;
}
/**
 * A new note.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "NoteIn".
 */
export interface NoteIn {
  id?: {
    [k: string]: unknown;
  };
  version?: {
    [k: string]: unknown;
  };
  created_date?: {
    [k: string]: unknown;
  };
  updated_date?: {
    [k: string]: unknown;
  };
  deleted_date?: {
    [k: string]: unknown;
  };
  merged?: {
    [k: string]: unknown;
  };
  snippet?: {
    [k: string]: unknown;
  };
  title: string;
  description: string;
  /**
   * at most 1 MiB of UTF-8
   */
  content?: string;
  /**
   * @maxItems 32
   */
  tags?: string[];
}
/**
 * A JSON merge patch (RFC 7396). ``null`` resets a field to its default; title and description have no default.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "NotePatch".
 */
export interface NotePatch {
  id?: {
    [k: string]: unknown;
  };
  version?: {
    [k: string]: unknown;
  };
  created_date?: {
    [k: string]: unknown;
  };
  updated_date?: {
    [k: string]: unknown;
  };
  deleted_date?: {
    [k: string]: unknown;
  };
  merged?: {
    [k: string]: unknown;
  };
  snippet?: {
    [k: string]: unknown;
  };
  title?: string;
  description?: string;
  content?: string | null;
  tags?: string[] | null;
}
/**
 * A note after a write, and whether the write was merged with other changes.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Merged".
 */
export interface Merged {
  id: number;
  title: string;
  description: string;
  tags: string[];
  version: number;
  created_date: string;
  updated_date: string;
  content: string;
  merged?: boolean;
}
/**
 * A note in the trash.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Trashed".
 */
export interface Trashed {
  id: number;
  title: string;
  description: string;
  tags: string[];
  version: number;
  created_date: string;
  updated_date: string;
  content: string;
  deleted_date: string;
}
/**
 * A tag with the number of notes that have it.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "TagCount".
 */
export interface TagCount {
  tag: string;
  count: number;
}
/**
 * A version of a note in its history: its author, date and action, and the fields that it changed.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Revision".
 */
export interface Revision {
  version: number;
  date: string;
  /**
   * the name of the user who made the change; `null` for a guest
   */
  author: string | null;
  /**
   * the names of the users whose typed text the version adds
   */
  authors?: string[];
  action: "create" | "update" | "edit" | "type" | "import" | "restore" | "delete" | "undelete" | "share";
  /**
   * for `restore`, the version that was restored
   */
  restored: number | null;
  /**
   * fields whose value differs from the previous version
   */
  changed: string[];
  title: string;
  description: string;
  tags: string[];
}
/**
 * A version of a note with its content.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "RevisionText".
 */
export interface RevisionText {
  version: number;
  date: string;
  /**
   * the name of the user who made the change; `null` for a guest
   */
  author: string | null;
  /**
   * the names of the users whose typed text the version adds
   */
  authors?: string[];
  action: "create" | "update" | "edit" | "type" | "import" | "restore" | "delete" | "undelete" | "share";
  /**
   * for `restore`, the version that was restored
   */
  restored: number | null;
  /**
   * fields whose value differs from the previous version
   */
  changed: string[];
  title: string;
  description: string;
  tags: string[];
  content: string;
}
/**
 * The mode of the server and the signed-in user.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Me".
 */
export interface Me {
  /**
   * `open`: no accounts, everyone has access to all notes
   */
  mode: "open" | "accounts";
  /**
   * who can create an account
   */
  sign_up: "open" | "invite" | "closed";
  /**
   * the signed-in user
   */
  user: User | null;
  /**
   * failed sign-ins to show to the user, until they are acknowledged or until the next sign-in
   */
  failed_sign_ins?: FailedSignIns | null;
}
/**
 * The signed-in user, and the kind of credentials.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "User".
 */
export interface User {
  name: string;
  admin: boolean;
  via: "session" | "token";
}
/**
 * Failed sign-ins of a user between the last two successful sign-ins in a browser.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "FailedSignIns".
 */
export interface FailedSignIns {
  count: number;
  /**
   * time of the latest failed sign-in
   */
  last_date: string;
}
/**
 * A session of a user.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "SignIn".
 */
export interface SignIn {
  id: string;
  created_date: string;
  /**
   * time of the last use, to the minute
   */
  used_date: string;
  /**
   * extended by each use: 14 days after the last use, at most 90 days after the sign-in
   */
  expires_date: string;
  address: string | null;
  /**
   * the `User-Agent` of the browser
   */
  agent: string | null;
  /**
   * whether this request uses it
   */
  current?: boolean;
}
/**
 * A new account.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "SignUpIn".
 */
export interface SignUpIn {
  /**
   * 2–32 characters of a–z, 0–9, `.`, `_` and `-`; case-insensitive
   */
  name: string;
  /**
   * at least 15 characters, and not easy to guess, for example a few words
   */
  password: string;
  /**
   * the invite from an administrator
   */
  invite?: string | null;
  /**
   * the setup token that the server printed at startup, to create the first administrator
   */
  setup?: string | null;
}
/**
 * An API token, without its secret.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Token".
 */
export interface Token {
  id: string;
  name: string;
  scope: "read" | "write";
  created_date: string;
  /**
   * time of the last use, to the minute; `null` if never used
   */
  used_date: string | null;
  expires_date: string;
}
/**
 * A new API token. `token` is returned only once.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "NewToken".
 */
export interface NewToken {
  id: string;
  name: string;
  scope: "read" | "write";
  created_date: string;
  /**
   * time of the last use, to the minute; `null` if never used
   */
  used_date: string | null;
  expires_date: string;
  token: string;
}
/**
 * A user, as shown to administrators.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "UserListed".
 */
export interface UserListed {
  name: string;
  admin: boolean;
  disabled: boolean;
  created_date: string;
}
/**
 * An invite for one person.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Invite".
 */
export interface Invite {
  /**
   * the secret, to be sent on sign-up
   */
  invite: string;
  /**
   * for `DELETE /invites/{id}`
   */
  id: string;
  expires: string;
}
/**
 * An invite that can still be used. Its secret is not stored.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "InviteListed".
 */
export interface InviteListed {
  id: string;
  /**
   * the administrator who created it
   */
  by: string | null;
  created_date: string;
  expires_date: string;
}
/**
 * An entry of the audit log: an action, or a failed attempt if `ok` is false.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Entry".
 */
export interface Entry {
  date: string;
  /**
   * the user; `guest:` and the id of a share link for a guest; `null` for an unknown caller or the operator of the server
   */
  who: string | null;
  action:
    | "sign-up"
    | "sign-in"
    | "sign-out"
    | "password"
    | "password.confirm"
    | "session.end"
    | "token.make"
    | "token.end"
    | "user.add"
    | "user.disable"
    | "user.enable"
    | "user.reset"
    | "user.promote"
    | "user.demote"
    | "user.delete"
    | "invite"
    | "invite.revoke"
    | "note.create"
    | "note.change"
    | "note.delete"
    | "note.restore"
    | "note.purge"
    | "note.share"
    | "note.access"
    | "export"
    | "token.use";
  /**
   * a user, a note, a session, a token or an invite; `null` for `note.access` and `token.use` if the caller had too many in an hour to record each
   */
  target: string | null;
  /**
   * the address of the caller; `null` for text typed in an editor
   */
  address: string | null;
  ok: boolean;
}
/**
 * The new access rights of a note. Omitted rights are revoked.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "AccessIn".
 */
export interface AccessIn {
  /**
   * @maxItems 100
   */
  members?: Member[];
  /**
   * the role of the share link; `null` permanently revokes the link
   */
  link?: ("viewer" | "editor") | null;
  /**
   * whether everyone can read the note
   */
  public?: boolean;
  /**
   * the new owner, to transfer the note
   */
  owner?: string | null;
}
/**
 * A user that a note is shared with.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Member".
 */
export interface Member {
  /**
   * 2–32 characters of a–z, 0–9, `.`, `_` and `-`; case-insensitive
   */
  name: string;
  role: "viewer" | "editor";
}
/**
 * The access rights of a note. `members` and `link` are `null` unless the caller is the owner.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "AccessOut".
 */
export interface AccessOut {
  /**
   * `null` for a note that was created without accounts and belongs to the administrators
   */
  owner: string | null;
  /**
   * the caller's role; `null` if the request transferred the note
   */
  role: ("viewer" | "editor" | "owner") | null;
  members: Member[] | null;
  link: LinkOut | null;
  public: boolean;
}
/**
 * The share link of a note. Everyone who has its token has the role.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "LinkOut".
 */
export interface LinkOut {
  role: "viewer" | "editor";
  /**
   * to be sent to `POST /auth/links`, or as `Authorization: Bearer …`
   */
  token: string;
}
/**
 * The old and the new password.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "PasswordChange".
 */
export interface PasswordChange {
  old: string;
  /**
   * at least 15 characters, and not easy to guess, for example a few words
   */
  new: string;
  /**
   * whether to revoke all your API tokens
   */
  revoke_tokens?: boolean;
}
/**
 * The result of an import.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Imported".
 */
export interface Imported {
  /**
   * number of imported notes
   */
  imported: number;
  /**
   * ids of the imported notes, in the order of the files
   */
  ids: number[];
  /**
   * files that were not imported
   */
  skipped: FileRemark[];
  /**
   * files that were imported with changes
   */
  changed: FileRemark[];
}
/**
 * A file of an import that was skipped or changed, with the reason.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "FileRemark".
 */
export interface FileRemark {
  /**
   * the name, inside its archive if there is one; long names are shortened
   */
  file: string;
  /**
   * the reasons, separated by semicolons
   */
  reason: string;
}
/**
 * Signs in. On a server with accounts, this is the first frame of a connection without a session cookie or header.
 *
 * Without a token, the client remains anonymous and receives only public notes.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Auth".
 */
export interface Auth {
  type: "auth";
  token?: string | null;
}
/**
 * Optional reply to a heartbeat.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "Pong".
 */
export interface Pong {
  type: "pong";
}
/**
 * Sets this client's state on a note that it is viewing. ``null`` removes the state.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "PresenceSet".
 */
export interface PresenceSet {
  type: "presence";
  id: number;
  state: {
    [k: string]: JsonValue;
  } | null;
}
/**
 * The changes between two versions: the hunks of each changed field.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "DifferenceOut".
 */
export interface DifferenceOut {
  id: number;
  before: number;
  after: number;
  fields: {
    [k: string]: HunkOut[];
  };
}
/**
 * Changed lines and their context, each prefixed with a space, `-` or `+`. Line numbers start at 1.
 *
 * This interface was referenced by `Schemas`'s JSON-Schema
 * via the `definition` "HunkOut".
 */
export interface HunkOut {
  from_line: number;
  from_lines: number;
  to_line: number;
  to_lines: number;
  lines: string[];
}
