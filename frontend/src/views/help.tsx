/** The sheet of all keys. */

import { useEffect, useRef } from "preact/hooks";
import { letters, sheetOpen } from "./keys";

const KEYS: [string, string][] = [
  ["/", "search"],
  ["n", "new note"],
  ["j / k", "next / previous note"],
  ["e", "edit the text"],
  ["v", "write, both, read"],
  ["h", "history"],
  ["Ctrl+S", "save now"],
  ["Esc", "out of a field; back to the list"],
  ["?", "this sheet"],
];

export function Help() {
  const sheet = useRef<HTMLDialogElement>(null);
  const open = sheetOpen.value;
  useEffect(() => {
    if (open) sheet.current?.showModal();
    else sheet.current?.close();
  }, [open]);
  return (
    <dialog
      ref={sheet}
      aria-label="Keys"
      onClose={() => {
        sheetOpen.value = false;
      }}
    >
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog">
        <label>
          <input
            type="checkbox"
            checked={letters.value}
            onChange={(event) => {
              letters.value = event.currentTarget.checked;
              localStorage.setItem("letters", letters.value ? "on" : "off");
            }}
          />
          Keys without Ctrl
        </label>
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
