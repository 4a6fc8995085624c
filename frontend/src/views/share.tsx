/** With whom a note is shared, for its owner. */

import { useEffect, useRef, useState } from "preact/hooks";
import { user } from "../account";
import * as api from "../api";
import { base } from "../root";
import { told } from "../sharing";
import type { AccessIn, Member } from "../types";
import { Secret } from "./secret";

type Level = Member["role"];

interface Props {
  id: number;
  title: string;
  close: () => void;
}

/** What the dialog asks for. */
interface Wanted {
  members: Member[];
  link: Level | null;
  public: boolean;
}

const wantedOf = ({ members, link, public: everyone }: api.Access): Wanted => ({
  members: members ?? [],
  link: link?.role ?? null,
  public: everyone,
});

const alike = (a: api.Access, b: api.Access): boolean =>
  a.owner === b.owner && JSON.stringify(wantedOf(a)) === JSON.stringify(wantedOf(b));

const MAY: Record<Level, string> = { viewer: "may read", editor: "may write" };

export function ShareDialog({ id, title, close }: Props) {
  const sheet = useRef<HTMLDialogElement>(null);
  const [access, setAccess] = useState<api.Access | null>(null);
  const [wanted, setWanted] = useState<Wanted>({ members: [], link: null, public: false });
  const [word, setWord] = useState("");
  const [unknown, setUnknown] = useState<string[]>([]);

  const show = (now: api.Access): void => {
    setAccess(now);
    setWanted(wantedOf(now));
    setUnknown([]);
    told(id, now);
  };
  useEffect(() => {
    sheet.current?.showModal();
    api.access(id).then(show, (error: Error) => setWord(error.message));
  }, [id]);

  const change = (changed: Partial<Wanted>): void => {
    setWanted((now) => ({ ...now, ...changed }));
    setWord("");
  };

  /** The version that is named grows with each word that is typed into the note: only who may do what is not to be another. */
  const put = async (body: AccessIn): Promise<api.Access | null> => {
    for (let as = access; as; ) {
      try {
        return await api.share(id, body, as.etag);
      } catch (error) {
        if (!(error instanceof api.ApiError) || error.status !== 412) throw error;
        const now = await api.access(id);
        if (alike(now, as)) {
          as = now;
          continue;
        }
        show(now);
        setWord("Somebody shared it otherwise meanwhile: this is how it is now");
        return null;
      }
    }
    return null;
  };

  const failed = (error: unknown): void => {
    const { unknown: names } = error instanceof api.ApiError ? error.body : {};
    setUnknown(names ?? []);
    setWord(error instanceof Error ? error.message : String(error));
  };

  const save = async (): Promise<void> => {
    try {
      const now = await put(wanted);
      if (!now) return;
      show(now);
      setWord("Saved");
    } catch (error) {
      failed(error);
    }
  };

  const give = async (to: string): Promise<void> => {
    const me = user.value?.name;
    const members = wanted.members.filter(({ name }) => name !== to);
    if (me) members.push({ name: me, role: "editor" });
    try {
      const now = await put({ ...wanted, members, owner: to });
      if (!now) return;
      told(id, now);
      close();
    } catch (error) {
      failed(error);
    }
  };

  return (
    <dialog ref={sheet} class="share" aria-labelledby="share" onClose={close}>
      <h2 id="share">Share “{title}”</h2>
      {access && (
        <>
          <Members wanted={wanted} unknown={unknown} change={(members) => change({ members })} />
          <label>
            Whoever has the link
            <select
              value={wanted.link ?? ""}
              onChange={(event) => change({ link: (event.currentTarget.value || null) as Level | null })}
            >
              <option value="">may do nothing</option>
              <option value="viewer">{MAY.viewer}</option>
              <option value="editor">{MAY.editor}</option>
            </select>
          </label>
          {access.link && wanted.link && (
            <Secret label="The link" value={`${base()}/n/${id}#link=${access.link.token}`} />
          )}
          <label>
            Everyone may read it
            <input
              type="checkbox"
              checked={wanted.public}
              onChange={(event) => change({ public: event.currentTarget.checked })}
            />
          </label>
          <Give give={(to) => void give(to)} />
        </>
      )}
      <p role="status" class={word === "Saved" ? "faint" : word && "alert"}>
        {word}
      </p>
      <div class="choices">
        <button type="button" class="primary" disabled={!access} onClick={() => void save()}>
          Save
        </button>
        <button type="button" onClick={() => sheet.current?.close()}>
          Close
        </button>
      </div>
    </dialog>
  );
}

interface Shown {
  wanted: Wanted;
  unknown: string[];
  change: (members: Member[]) => void;
}

function Members({ wanted: { members }, unknown, change }: Shown) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<Level>("viewer");
  const add = (): void => {
    const fresh = name.trim().toLowerCase();
    if (!fresh) return;
    change([...members.filter((one) => one.name !== fresh), { name: fresh, role }]);
    setName("");
  };
  return (
    <>
      <ul class="entries" aria-label="Members">
        {members.map((one) => (
          <li key={one.name}>
            <div>
              <b>{one.name}</b>
              {unknown.includes(one.name) && <small class="bad">There is nobody with this name</small>}
            </div>
            <Levels
              label={`What ${one.name} may do`}
              value={one.role}
              change={(to) => change(members.map((other) => (other === one ? { ...one, role: to } : other)))}
            />
            <button
              type="button"
              aria-label={`Remove ${one.name}`}
              onClick={() => change(members.filter((other) => other !== one))}
            >
              ×
            </button>
          </li>
        ))}
      </ul>
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault();
          add();
        }}
      >
        <input
          aria-label="Name of somebody to share with"
          placeholder="Name"
          maxLength={32}
          autocomplete="off"
          autocapitalize="none"
          spellcheck={false}
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <Levels label="What they may do" value={role} change={setRole} />
        <button type="submit">Add</button>
      </form>
    </>
  );
}

function Levels({ label, value, change }: { label: string; value: Level; change: (to: Level) => void }) {
  return (
    <select aria-label={label} value={value} onChange={(event) => change(event.currentTarget.value as Level)}>
      <option value="viewer">{MAY.viewer}</option>
      <option value="editor">{MAY.editor}</option>
    </select>
  );
}

function Give({ give }: { give: (to: string) => void }) {
  const [to, setTo] = useState("");
  const [sure, setSure] = useState(false);
  const name = to.trim().toLowerCase();
  return (
    <details>
      <summary>Give it away…</summary>
      <form
        class="line"
        onSubmit={(event) => {
          event.preventDefault();
          if (sure) give(name);
          else setSure(name !== "");
        }}
      >
        <input
          aria-label="Name of the new owner"
          placeholder="Name"
          maxLength={32}
          autocomplete="off"
          autocapitalize="none"
          spellcheck={false}
          value={to}
          onInput={(event) => {
            setTo(event.currentTarget.value);
            setSure(false);
          }}
        />
        <button type="submit" class={sure ? "danger" : ""}>
          {sure ? `Really make ${name} the owner?` : "Give away"}
        </button>
      </form>
      <small>You may still write it, until the new owner says otherwise.</small>
    </details>
  );
}
