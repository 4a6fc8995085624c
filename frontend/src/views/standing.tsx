/** What is shown at a note where there are accounts. */

import { useState } from "preact/hooks";
import { accounts } from "../account";
import { accessOf, roleOf } from "../sharing";
import { ShareDialog } from "./share";

/** Whose the note is, and that one may only read it, if so. */
export function Standing({ id }: { id: number }) {
  const role = roleOf(id);
  const owner = accessOf(id)?.owner;
  if (!accounts.value || role === null || role === "owner") return null;
  return (
    <span class="standing" role="status">
      {role === "viewer" && <b>Read only</b>}
      {owner && <span>Owner: {owner}</span>}
    </span>
  );
}

export function Share({ id, title }: { id: number; title: string }) {
  const [open, show] = useState(false);
  return (
    <>
      <button type="button" aria-haspopup="dialog" onClick={() => show(true)}>
        Share
      </button>
      {open && <ShareDialog id={id} title={title} close={() => show(false)} />}
    </>
  );
}
