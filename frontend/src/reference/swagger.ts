/** Swagger UI on the server's own description: `/docs`. */

import "swagger-ui-dist/swagger-ui.css";
import "swagger-ui-dist/index.css";
import SwaggerUIBundle from "swagger-ui-dist/swagger-ui-es-bundle.js";
import { prefix } from "./prefix";

SwaggerUIBundle({
  url: `${prefix}/openapi.json`,
  dom_id: "#reference",
  deepLinking: true,
  oauth2RedirectUrl: `${location.origin}${prefix}/docs/oauth2-redirect`,
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null, // its makers' server
});
