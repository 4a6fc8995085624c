/** ReDoc on the server's own description: `/redoc`. */

import "./redoc.css";
import { init } from "redoc/bundles/redoc.standalone.js";
import { prefix } from "./prefix";

const font = "system-ui, sans-serif";
init(
  `${prefix}/openapi.json`,
  {
    // Its own fonts would come from elsewhere.
    theme: { typography: { fontFamily: font, headings: { fontFamily: font } } },
  },
  document.querySelector("#reference"),
);
