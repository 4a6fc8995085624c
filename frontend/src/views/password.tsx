/** A field for a password, which can be looked at. */

import { useId, useState } from "preact/hooks";

interface Props {
  label: string;
  value: string;
  change: (value: string) => void;
}

export const Password = (props: Props) => <Field {...props} kind="current-password" />;

export const NewPassword = (props: Props) => (
  <Field {...props} kind="new-password" hint="At least 15 characters; a few unrelated words will do" />
);

function Field({
  label,
  value,
  change,
  kind,
  hint,
}: Props & { kind: "current-password" | "new-password"; hint?: string }) {
  const [shown, show] = useState(false);
  const id = useId();
  return (
    <div class="password">
      <label for={id}>{label}</label>
      <span>
        <input
          id={id}
          name={kind}
          type={(shown ? "text" : "password") as "password"}
          autocomplete={kind}
          autocapitalize="none"
          spellcheck={false}
          aria-describedby={hint && `${id}-hint`}
          value={value}
          onInput={(event) => change(event.currentTarget.value)}
        />
        <button type="button" aria-pressed={shown} aria-label={`Show: ${label}`} onClick={() => show(!shown)}>
          {shown ? "Hide" : "Show"}
        </button>
      </span>
      {hint && <small id={`${id}-hint`}>{hint}</small>}
    </div>
  );
}
